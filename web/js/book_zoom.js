// A page, looked at closely: its picture in full, its words, dense prompt, seed and references, and what can be changed about it.
// A native dialog: Escape closes it, and the focus goes back to where it was. No side effects.
import { lockOf, marksOf, referenceChooser } from "./book_view.js"
import { button, copyText, element, keepKeys } from "./dom.js"
import { viewUrl } from "./view_url.js"

/** Opens the dialog at a page. `actions` are those of the book view; `edit` begins with the dense prompt in a text field. */
export function lookAt(book, number, actions, { edit = false } = {}) {
  const dialog = element("dialog", { className: "weaver-zoom" })
  const close = () => dialog.close()
  let current = number

  const turn = (by) => {
    const next = current + by
    if (next < 0 || next >= book.pages.length) return
    current = next
    fill(false)
    dialog.querySelector(by < 0 ? ".weaver-previous" : ".weaver-next").focus()
  }
  const fill = (editing) => {
    const page = book.pages[current]
    const done = (action) => () => {
      close()
      action()
    }
    dialog.setAttribute("aria-label", `Page ${current + 1} of ${book.title || "the story"}`)
    dialog.replaceChildren(pictureOf(page), element("div", { className: "weaver-facts" },
      barOf(book, current, turn, close),
      element("div", { className: "weaver-told", lang: book.language }, ...page.texts.map((text) => element("p", { textContent: text }))),
      ...(page.prompt ? factsOf(book, page, actions, { editing, fill, done }) : []),
    ))
    if (editing) dialog.querySelector("textarea").focus()
  }

  keepKeys(dialog)
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("textarea, select")) return
    if (event.key === "ArrowLeft") turn(-1)
    if (event.key === "ArrowRight") turn(1)
  })
  dialog.addEventListener("click", (event) => event.target === dialog && close()) // outside of it
  dialog.addEventListener("close", () => dialog.remove())
  fill(edit)
  document.body.append(dialog)
  dialog.showModal()
  return dialog
}

function barOf(book, number, turn, close) {
  const previous = button("chevron-left", "Previous page (left arrow)", () => turn(-1))
  const next = button("chevron-right", "Next page (right arrow)", () => turn(1))
  previous.classList.add("weaver-previous")
  next.classList.add("weaver-next")
  previous.disabled = number === 0
  next.disabled = number === book.pages.length - 1
  const place = element("span", { textContent: `${number + 1} / ${book.pages.length}` })
  return element("header", {}, previous, place, next, button("times", "Close (Escape)", close))
}

function pictureOf(page) {
  if (!page.picture) return element("div", { className: "weaver-large weaver-empty", textContent: page.prompt ? "not drawn yet" : "no picture" })
  const image = element("img", { src: viewUrl(page.picture), alt: page.prompt })
  ;[image.width, image.height] = page.picture.size
  return element("div", { className: "weaver-large" }, image)
}

function factsOf(book, page, actions, { editing, fill, done }) {
  const changes = actions.changes()
  const canChange = changes !== null && Boolean(page.picture) && actions.isReady()
  const parts = [element("h3", {}, "Dense prompt", copy("dense prompt", page.prompt))]
  if (editing) parts.push(...editorOf(page, actions, { fill, done }))
  else parts.push(element("p", { className: "weaver-prompt", textContent: page.prompt }))
  if (page.picture) parts.push(...pictureFacts(book, page))
  if (page.stale) parts.push(element("p", { className: "weaver-hint", textContent: `Stale: drawn from an earlier ${page.stale.join(" and ")}.` }))
  if (!editing && canChange) parts.push(toolsOf(book, page, changes, actions, { fill, done }))
  if (!canChange && page.picture) parts.push(element("p", { className: "weaver-hint", textContent: actions.whyNot() }))
  return parts
}

function pictureFacts(book, page) {
  const { seed, size, references } = page.picture
  const list = element("dl", {},
    element("dt", { textContent: "Seed" }), element("dd", {}, element("code", { textContent: seed }), copy("seed", seed)),
    element("dt", { textContent: "Size" }), element("dd", { textContent: `${size[0]} × ${size[1]} pixels` }),
  )
  list.append(element("dt", { textContent: "References" }), element("dd", { className: "weaver-references" },
    ...(references.length ? references.map((reference) => referenceOf(book, reference)) : ["none"])))
  return [list]
}

function referenceOf(book, { name, picture }) {
  const page = book.pages.findIndex((other) => other.id === name)
  const shown = page >= 0 ? book.pages[page].picture : picture
  const label = page >= 0 ? `page ${page + 1}` : name
  const made = element("span", { className: "weaver-thumb" })
  if (shown) made.append(element("img", { src: viewUrl(shown), alt: "", loading: "lazy" }))
  made.append(element("span", { textContent: label }))
  return made
}

function toolsOf(book, page, changes, actions, { fill, done }) {
  const reroll = button("refresh", "Draw this page with another seed", done(() => actions.reroll(page)), "Re-roll")
  const edit = button("pencil", "Edit the dense prompt", () => fill(true), "Edit prompt")
  reroll.disabled = edit.disabled = page.locked
  const change = changes.of(page)
  const closing = { lock: (...how) => done(() => actions.lock(...how))(), reference: (...how) => done(() => actions.reference(...how))() }
  const lock = lockOf(page, change, closing, page.locked ? "Unlock" : "Lock")
  const chooser = referenceChooser(page, book.pages, closing)
  chooser.classList.add("weaver-wide")
  const tools = element("div", { className: "weaver-row" }, reroll, lock, edit, chooser)
  if (change) tools.append(button("undo", "The page as the plan says", done(() => actions.undo(page)), "Undo changes"))
  const marks = marksOf(page, change)
  return marks.length ? element("div", {}, element("div", { className: "weaver-row" }, ...marks), tools) : tools
}

function editorOf(page, actions, { fill, done }) {
  const area = element("textarea", { className: "weaver-prompt", value: page.prompt, rows: 7, ariaLabel: "Dense prompt", spellcheck: true })
  const draw = button("check", "Draw the page with this dense prompt (Ctrl+Enter)", () => save(), "Draw with this prompt")
  draw.classList.add("weaver-primary")
  const cancel = button("", "Leave the dense prompt as it is", () => fill(false), "Cancel")
  const save = () => {
    const prompt = area.value.trim()
    if (prompt) done(() => actions.edit(page, prompt))()
  }
  area.addEventListener("input", () => (draw.disabled = !area.value.trim()))
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return
    event.preventDefault()
    event.stopPropagation() // ComfyUI's own Ctrl+Enter would queue the graph a second time
    save()
  })
  return [area, element("div", { className: "weaver-row" }, draw, cancel)]
}

function copy(what, text) {
  const made = button("copy", `Copy the ${what}`, async () => {
    await copyText(text)
    made.classList.add("weaver-copied")
    setTimeout(() => made.classList.remove("weaver-copied"), 1200)
  })
  return made
}
