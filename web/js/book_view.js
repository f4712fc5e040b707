// The picture book in the node: pages side by side with their text, shown while they are made. It knows nothing of the graph:
// what its buttons mean is in the `actions` it is given. Model and user text goes in as textContent only. No side effects.
import { button, element, keepKeys, letScroll } from "./dom.js"
import { viewUrl } from "./view_url.js"

const INVITATION = "Press Run: the story appears here while it is written and drawn."

export class BookView {
  /** actions: look, reroll, lock, edit, reference, undo, clear, redrawStale, goOn, changes, isReady, whyNot; see story_preview.js */
  constructor(actions) {
    this.actions = actions
    this.book = null // {title, language, pages}
    this.run = null // the run whose story comes in just now
    this.ended = new Set() // runs whose later messages are not of interest any more
    this.pageViews = []
    this.title = element("h2")
    this.status = element("div", { className: "weaver-status", hidden: true })
    this.status.setAttribute("role", "status")
    this.pages = element("div", { className: "weaver-pages" })
    this.invitation = element("div", { className: "weaver-invitation", textContent: INVITATION })
    this.view = element("div", { className: "weaver-book", tabIndex: 0 }, this.invitation)
    this.root = element("div", { className: "weaver-frame" }, this.view)
    letScroll(this.view)
    keepKeys(this.view)
    for (const kind of ["wheel", "pointerdown", "keydown"]) this.view.addEventListener(kind, () => (this.follows = false), { passive: true })
  }

  /** Shows a finished story. */
  show(book) {
    if (this.run) this.ended.add(this.run)
    this.run = null
    this.book = book
    this.draw()
  }

  /** Takes in what a running node says about its story; one run at a time, and none that has ended. */
  hear(message) {
    const run = message.prompt_id
    if (this.ended.has(run)) return
    const earlier = this.book?.pages ?? []
    if (run !== this.run || message.fresh) {
      if (run !== this.run) this.follows = true
      this.run = run
      this.book = { title: "", language: "en", pages: [] }
      this.earlier = new Map(earlier.filter((page) => page.picture ?? page.earlier).map((page) => [page.id, page]))
    }
    this.book.seeds = message.seeds
    this.book.title = message.title
    this.book.language = message.language
    this.book.pages.length = message.count
    for (const [number, page] of Object.entries(message.pages)) {
      const before = this.earlier.get(page.id)
      // The picture that was there stays, faintly, until the page has been drawn or found again.
      if (!page.picture && before?.prompt === page.prompt) page.earlier = before.picture ?? before.earlier
      this.book.pages[Number(number)] = page
    }
    // A page that was loaded anew meanwhile has missed some; they come with the next message that holds all.
    for (let number = 0; number < message.count; number++)
      this.book.pages[number] ??= { id: null, texts: [], prompt: null, picture: null, waits: true }
    this.draw()
  }

  /** A preview of the page that is being drawn in this run. */
  hearPreview(run, blob) {
    if (run !== this.run) return
    const number = this.book.pages.findIndex((page) => page.now && page.progress)
    if (number >= 0) this.pageViews[number]?.preview(blob)
  }

  /** The run has ended without a finished story. */
  stop(run, sentence) {
    if (run !== this.run) return
    this.ended.add(run)
    this.run = null
    this.sentence = sentence
    for (const page of this.book.pages) page.now = page.progress = null
    this.draw()
  }

  draw() {
    const { book } = this
    const running = this.run !== null
    if (running) this.sentence = ""
    if (!this.pages.isConnected || this.view.firstChild === this.invitation) this.view.replaceChildren(this.title, this.status, this.pages)
    this.view.lang = book.language
    this.view.classList.toggle("weaver-live", running)
    setText(this.title, book.title || (running ? "…" : "Untitled"))
    const changes = this.actions.changes()
    const canChange = changes !== null && this.actions.isReady()
    for (let number = 0; number < book.pages.length; number++) {
      this.pageViews[number] ??= new PageView(number, this.actions)
      const page = book.pages[number]
      this.pageViews[number].show(page, { running, change: changes?.of(page) ?? null, pages: book.pages, canChange })
    }
    this.pageViews.length = book.pages.length
    const articles = this.pageViews.map((page) => page.article)
    if (articles.length !== this.pages.childElementCount || articles.some((article, index) => this.pages.children[index] !== article))
      this.pages.replaceChildren(...articles)
    this.drawStatus(running, changes)
    if (running && this.follows) this.follow()
  }

  drawStatus(running, changes) {
    const pages = this.book.pages
    const parts = []
    if (running) parts.push(element("span", { className: "weaver-doing", textContent: doing(pages) }))
    else if (this.sentence) {
      parts.push(element("span", { textContent: this.sentence }))
      const label = "Draw what is missing, with the seeds that this story was begun with"
      if (this.actions.isReady()) parts.push(button("", label, () => this.actions.goOn(), "Go on"))
    }
    const numStale = pages.filter((page) => page.stale).length
    if (!running && numStale) {
      parts.push(element("span", { textContent: numStale === 1 ? "1 page is stale" : `${numStale} pages are stale` }))
      if (changes) parts.push(button("", "Draw those pages anew that were drawn from an earlier picture", () => this.actions.redrawStale(), "Redraw"))
    }
    if (changes?.count) {
      parts.push(element("span", { textContent: changes.count === 1 ? "1 page changed" : `${changes.count} pages changed` }))
      const label = "Take back what was changed in this book view: the pages are as the plan says"
      parts.push(button("", label, () => this.actions.clear(), "Clear changes"))
    }
    const key = parts.map((part) => part.textContent).join("|")
    if (key === this.statusKey) return // keeps the focus on a button while pages come in
    this.statusKey = key
    this.status.hidden = !parts.length
    this.status.replaceChildren(...parts)
  }

  /** Keeps the page that is being made in sight, until the reader scrolls. */
  follow() {
    const number = this.book.pages.findIndex((page) => page.now)
    if (number < 0 || number === this.followed) return
    this.followed = number
    const { article } = this.pageViews[number]
    const top = article.offsetTop - 44 // the line that says what is being done lies over the top
    const isInSight = top >= this.view.scrollTop && article.offsetTop + article.offsetHeight <= this.view.scrollTop + this.view.clientHeight
    if (!isInSight) this.view.scrollTo({ top, behavior: "smooth" })
  }
}

function doing(pages) {
  const number = pages.findIndex((page) => page.now)
  const images = pages.filter((page) => page.prompt)
  const drawn = images.filter((page) => page.picture).length
  if (number >= 0 && pages[number].progress) return `drawing picture ${images.indexOf(pages[number]) + 1} of ${images.length}`
  if (number >= 0) return `writing page ${number + 1}`
  return drawn ? `${drawn} of ${images.length} pictures are there` : "the plan is written"
}

/** One page. What has not changed is left alone, so that nothing flickers and pictures are loaded once. */
class PageView {
  constructor(number, actions) {
    this.number = number
    this.actions = actions
    this.words = element("div", { className: "weaver-words" })
    this.figure = element("figure", { className: "weaver-picture" })
    this.article = element("article", { className: "weaver-page" }, this.words)
  }

  show(page, context) {
    this.page = page
    this.context = context
    const words = JSON.stringify([page.texts, page.waits])
    if (words !== this.shownWords) {
      this.shownWords = words
      const texts = page.texts.map((text) => element("p", { textContent: text }))
      this.words.replaceChildren(...texts, element("span", { className: "weaver-number", textContent: String(this.number + 1) }))
    }
    const writes = Boolean(page.now && !page.progress && !page.prompt)
    this.article.classList.toggle("weaver-now", Boolean(page.now))
    this.words.classList.toggle("weaver-writing", writes)
    this.article.dataset.page = page.id ?? ""
    const hasPicture = Boolean(page.prompt) || page.waits || writes
    this.article.classList.toggle("weaver-words-only", !hasPicture)
    if (hasPicture && !this.figure.isConnected) this.article.prepend(this.figure)
    if (!hasPicture) this.figure.remove()
    else this.showFigure(page, context)
  }

  showFigure(page, { running, change, pages, canChange }) {
    const picture = page.picture ?? page.earlier
    const facts = JSON.stringify([
      picture, page.prompt, page.stale, page.locked, change, running, canChange, Boolean(page.earlier), !running && pages.map((p) => p.locked),
    ])
    if (facts !== this.shownFigure) {
      this.shownFigure = facts
      this.progress = null
      const parts = [picture ? this.pictureOf(page, picture) : element("div", { className: "weaver-empty", textContent: page.prompt ?? "" })]
      const marks = marksOf(page, change)
      if (marks.length) parts.push(element("div", { className: "weaver-marks" }, ...marks))
      if (!running && page.picture && canChange) parts.push(this.toolsOf(page, change, pages))
      this.figure.replaceChildren(...parts)
      this.figure.classList.toggle("weaver-earlier", Boolean(!page.picture && page.earlier))
    }
    this.showProgress(page.progress)
  }

  pictureOf(page, picture) {
    const key = JSON.stringify([picture, page.prompt])
    if (key === this.lookKey) return this.look // the same element, so that the picture does not flicker
    this.lookKey = key
    const [width, height] = picture.size
    const image = element("img", { alt: page.prompt ?? "", draggable: false, decoding: "async", loading: "lazy", width, height })
    image.src = viewUrl(picture)
    image.onerror = () => image.replaceWith(element("div", { className: "weaver-empty", textContent: "The picture is no longer there." }))
    const label = `Look closer at page ${this.number + 1}`
    const onclick = () => this.actions.look(this.number)
    this.look = element("button", { type: "button", className: "weaver-look", title: label, ariaLabel: label, onclick }, image)
    return this.look
  }

  toolsOf(page, change, pages) {
    const { actions } = this
    const reroll = button("refresh", "Re-roll: draw this page with another seed", () => actions.reroll(page))
    const edit = button("pencil", "Edit the dense prompt", () => actions.look(this.number, { edit: true }))
    reroll.disabled = edit.disabled = page.locked
    return element("div", { className: "weaver-tools" }, reroll, lockOf(page, change, actions), edit, referenceChooser(page, pages, actions))
  }

  showProgress(progress) {
    if (!progress) {
      this.bar?.remove()
      this.bar = null
      this.forgetPreview()
      return
    }
    if (!this.bar?.isConnected) {
      this.bar = element("progress", { className: "weaver-progress" })
      this.figure.append(this.bar)
    }
    ;[this.bar.value, this.bar.max] = progress
  }

  preview(blob) {
    const url = URL.createObjectURL(blob)
    if (!this.previewImage?.isConnected) {
      this.previewImage = element("img", { className: "weaver-preview", alt: "", draggable: false })
      this.figure.append(this.previewImage)
    }
    this.previewImage.src = url
    if (this.previewUrl) URL.revokeObjectURL(this.previewUrl)
    this.previewUrl = url
  }

  forgetPreview() {
    this.previewImage?.remove()
    this.previewImage = null
    if (this.previewUrl) URL.revokeObjectURL(this.previewUrl)
    this.previewUrl = null
  }
}

/** The lock of a page; one that the plan itself locks is opened there. */
export function lockOf(page, change, actions, text = "") {
  const isPlans = page.locked && !change?.locked
  const label = isPlans ? "Locked in the plan" : page.locked ? "Unlock this page" : "Lock: keep this picture whatever changes"
  const lock = button(page.locked ? "lock" : "lock-open", label, () => actions.lock(page, !page.locked), text)
  lock.setAttribute("aria-pressed", String(page.locked))
  lock.disabled = isPlans
  return lock
}

/** The choice of pages that shall be drawn from this one: those after it that are not locked. */
export function referenceChooser(page, pages, actions) {
  const later = pages.slice(pages.findIndex((other) => other.id === page.id) + 1).filter((other) => other.prompt && !other.locked)
  const label = "Use this picture as the reference of later pages"
  const chooser = element("select", { className: "weaver-choose", title: label, ariaLabel: label, disabled: !later.length })
  chooser.append(element("option", { value: "", textContent: "Use as reference for…" }))
  if (later.length > 1) chooser.append(element("option", { value: "all", textContent: "all later pages" }))
  for (const other of later) chooser.append(element("option", { value: other.id, textContent: `page ${pages.indexOf(other) + 1}` }))
  chooser.onchange = () => {
    const chosen = chooser.value === "all" ? later : later.filter((other) => other.id === chooser.value)
    chooser.value = ""
    if (chosen.length) actions.reference(page, chosen)
  }
  return element("span", { className: "weaver-button weaver-reference" }, element("i", { className: "pi pi-link", ariaHidden: "true" }), chooser)
}

export function marksOf(page, change) {
  const marks = []
  if (page.stale) marks.push(mark("stale", "weaver-stale", `Drawn from an earlier ${page.stale.join(" and ")}. Re-roll it, or redraw what is stale.`))
  if (page.picture?.fault) {
    const title = `This picture looks wrong (${page.picture.fault}). Re-roll it, or edit its dense prompt.`
    marks.push(mark("look at this", "weaver-fault", title))
  }
  if (page.locked) marks.push(mark("locked", "weaver-locked", "This picture stays, whatever changes."))
  else if (change) marks.push(mark("changed", "weaver-changed", "This page was changed in the book view."))
  return marks
}

function mark(text, kind, title) {
  return element("span", { className: `weaver-mark ${kind}`, textContent: text, title })
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text
}
