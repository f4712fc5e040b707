// The plan editor: title, cast, and the cards of all segments, with undo. It knows no ComfyUI. No side effects.
import { element, letScroll } from "./dom.js"
import { CastList } from "./plan_editor_cast.js"
import { ImageCard, TextCard } from "./plan_editor_cards.js"
import { button, iconButton, labelled, put, shortText, takeTyped } from "./plan_editor_parts.js"
import * as plans from "./plan_state.js"

const FIRST_SHOWN = 400 // cards; more on demand, so that a plan of ten thousand does not stop the page
const SAID_MS = 8000
const ASPECTS = ["1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16"]

let count = 0

/**
 * `save(text)` is told what is to be kept after every change, `accept()` that the user wants the plan to be drawn, and
 * `holdSeeds(seeds)` that the plan that has come in has to come again.
 */
export class PlanEditor {
  constructor({ save, holdSeeds, accept }) {
    this.save = save
    this.holdSeeds = holdSeeds
    this.accept = accept
    this.incoming = null
    this.history = new plans.History({ plan: plans.emptyPlan(), base: null, edited: false, damaged: null })
    this.cards = new Map()
    this.shown = FIRST_SHOWN
    this.build()
    this.render()
  }

  // ---- what comes from outside

  /** Goes on where another editor of the same node was. */
  resume(other) {
    this.incoming = other.incoming
    this.history = other.history
    this.render()
  }

  /** The text that was kept; the user's steps are forgotten unless it is what the editor shows already. */
  read(text) {
    if (text === this.kept()) return
    const found = plans.readEdits(text)
    const state = { plan: this.incoming?.plan ?? plans.emptyPlan(), base: null, edited: false, damaged: null }
    if (found?.fault) Object.assign(state, { damaged: text, fault: found.fault })
    else if (found) Object.assign(state, { ...found, edited: true })
    this.history = new plans.History(state)
    this.shown = FIRST_SHOWN
    this.render()
  }

  /** What the node has told: {plan, key, pictures, waits, notes, seeds}. */
  receive(incoming) {
    this.incoming = incoming
    this.followIncoming()
    this.render()
  }

  /** A plan that nobody has edited is always the one that came in last, also where the user has gone back to it. */
  followIncoming() {
    const { state } = this.history
    if (this.incoming && !state.edited && state.damaged === null)
      this.history.replace({ ...state, plan: this.incoming.plan ?? plans.emptyPlan() })
  }

  get pictures() {
    return this.incoming?.pictures ?? []
  }

  // ---- what the user does

  /** One change of the plan; those of one `kind` in a row are one step back. */
  act(change, kind = null) {
    const { plan, base, edited } = this.history.state
    const changed = change(plan)
    if (changed === plan) return
    this.step({ plan: changed, base: edited ? base : this.incoming?.key ?? null, edited: true, damaged: null }, kind)
  }

  step(state, kind = null) {
    this.history.step(state, kind)
    this.changed()
  }

  changed() {
    if (this.said.querySelector("input")) this.said.hidden = true // its Undo would take back this step, not the one it tells of
    this.save(this.kept())
    this.render()
  }

  kept() {
    const { plan, base, edited, damaged } = this.history.state
    return damaged ?? (edited ? plans.writeEdits(plan, base) : "")
  }

  change(id, fields, kind) {
    this.act((plan) => plans.withFields(plan, id, fields), kind)
  }

  /** A new card before the one with this id; at the end without one. */
  add(type, before = null) {
    const { segments } = this.history.state.plan
    const index = before === null ? segments.length : segments.findIndex((segment) => segment.id === before)
    let id
    this.act((plan) => {
      const [changed, fresh] = plans.withNew(plan, index, type)
      id = fresh
      return changed
    })
    if (index >= this.shown) this.showMore()
    this.focus(id)
  }

  remove(id) {
    const card = this.cards.get(id)
    const neighbour = card.root.nextElementSibling ?? card.root.previousElementSibling
    const name = card.name.textContent
    this.act((plan) => plans.without(plan, id))
    if (neighbour) this.cards.get(neighbour.dataset.id)?.handle.focus({ preventScroll: true })
    else this.end.firstElementChild.focus()
    this.say(`${name} deleted`, "Undo")
  }

  move(id, index) {
    this.act((plan) => plans.moved(plan, id, index))
    const { segments } = this.history.state.plan
    this.say(`${this.cards.get(id).name.textContent}: place ${segments.findIndex((segment) => segment.id === id) + 1} of ${segments.length}`)
  }

  moveBy(id, offset) {
    this.move(id, this.history.state.plan.segments.findIndex((segment) => segment.id === id) + offset)
    this.cards.get(id).root.scrollIntoView({ block: "nearest" })
  }

  takeNew() {
    this.step({ plan: this.incoming?.plan ?? plans.emptyPlan(), base: null, edited: false, damaged: null })
  }

  /** For the plan that has come in: while the node waits, that one has to come again, or else it would wait again. */
  keepMine() {
    if (this.incoming.waits) this.holdSeeds(this.incoming.seeds ?? [])
    this.step({ ...this.history.state, base: this.incoming.key, edited: true })
  }

  /** A step back or forth; shows what it has changed. The focus stays in the editor, or else the next key would be ComfyUI's. */
  travel(direction) {
    this.commit()
    const before = this.history.state.plan.segments
    if (!this.history[direction]()) return
    this.followIncoming()
    this.changed()
    const { segments } = this.history.state.plan
    const different = segments.find((segment) => !before.includes(segment))
    if (different) this.focus(different.id)
    else if (!this.root.contains(document.activeElement)) {
      const index = before.findIndex((segment) => !segments.includes(segment))
      const near = segments[Math.min(index, segments.length - 1)]
      if (this.cards.has(near?.id)) this.focus(near.id)
      else (this.title.disabled ? this.banner.querySelector("input") : this.title)?.focus()
    }
  }

  focus(id) {
    const card = this.cards.get(id)
    if (!card) return
    card.main.focus({ preventScroll: true })
    card.root.scrollIntoView({ block: "nearest" })
  }

  /** What is being typed counts, though the field has not been left. */
  commit() {
    const field = document.activeElement
    if (field && this.root.contains(field)) takeTyped(field)
  }

  commitLanguage(text) {
    const language = plans.languageFrom(text)
    if (language !== undefined) this.act((plan) => plans.withLanguage(plan, language))
    else this.say(`"${text}" is no language code; write one such as en, de or zh-Hant`)
    return language !== undefined
  }

  // ---- keys

  key(event) {
    const command = event.ctrlKey || event.metaKey
    if (command && (event.key === "Enter" || event.key.toLowerCase() === "s")) {
      this.commit() // ComfyUI runs or saves
      return
    }
    event.stopPropagation() // no key that is typed here may delete a node or undo something elsewhere
    if (event.isComposing) return
    const id = event.target.closest(".weaver-edit-item")?.dataset.id
    const offset = { ArrowUp: -1, ArrowDown: 1 }[event.key]
    if (command && !event.altKey && event.key.toLowerCase() === "z") this.travel(event.shiftKey ? "redo" : "undo")
    else if (command && !event.altKey && event.key.toLowerCase() === "y") this.travel("redo")
    else if (event.altKey && !command && offset && id) this.moveBy(id, offset)
    else if (event.altKey && !command && event.key === "Enter") this.addAfter(event.shiftKey ? "image" : "text", id)
    else return
    event.preventDefault()
  }

  addAfter(type, id) {
    const next = id ? this.cards.get(id).root.nextElementSibling?.dataset.id : null
    this.add(type, next ?? null)
  }

  // ---- drawing it

  build() {
    this.title = element("input", { type: "text", className: "weaver-edit-title", placeholder: "Title of the story", autocomplete: "off" })
    this.title.ariaLabel = "Title"
    this.title.addEventListener("input", () => this.act((plan) => plans.withTitle(plan, plans.clean(this.title.value)), "title"))
    const language = { className: "weaver-edit-language", title: "The language of title and texts, as a code: en, de, zh-Hant" }
    this.language = shortText("Language of the story", language, (text) => this.commitLanguage(text))
    this.counts = element("span", { className: "weaver-edit-counts" })
    this.mark = element("span", { className: "weaver-edit-mark" })
    this.back = iconButton("undo", "Undo (Ctrl+Z)", () => this.travel("undo"))
    this.forth = iconButton("redo", "Redo (Ctrl+Shift+Z)", () => this.travel("redo"))
    this.discard = button("Discard edits", () => this.takeNew(), { title: "Back to the plan that came in" })
    this.banner = element("div", { className: "weaver-edit-banner", role: "status" })
    this.aspects = element("datalist", { id: `weaver-edit-aspects-${(count += 1)}` }, ...ASPECTS.map((value) => element("option", { value })))
    this.view = element("div", { className: "weaver-edit-view" })
    this.list = element("ol", { className: "weaver-edit-items" })
    this.cast = new CastList(this)
    this.invitation = element("p", { className: "weaver-edit-invitation" })
    this.more = button("", () => this.showMore())
    this.end = element(
      "div", { className: "weaver-edit-end" },
      button("+ text", () => this.add("text"), { title: "A new text at the end (Alt+Enter: after the card you are in)" }),
      button("+ image", () => this.add("image"), { title: "A new image at the end (Alt+Shift+Enter: after the card you are in)" }),
    )
    this.view.append(this.cast.root, this.invitation, this.list, this.more, this.end)
    this.said = element("div", { className: "weaver-edit-said", role: "status", hidden: true })
    this.root = element(
      "section", { className: "weaver-edit", ariaLabel: "Plan editor" },
      element(
        "header", { className: "weaver-edit-head" },
        this.title,
        element("div", { className: "weaver-edit-bar" }, this.counts, this.mark, labelled("Language", this.language), this.discard, this.back, this.forth),
      ),
      this.banner, this.view, this.said, this.aspects,
    )
    letScroll(this.view)
    for (const name of ["pointerdown", "pointermove", "pointerup", "copy", "cut", "paste", "contextmenu", "dblclick"]) {
      this.root.addEventListener(name, (event) => event.stopPropagation())
    }
    this.root.addEventListener("keydown", (event) => this.key(event))
    this.root.addEventListener("focusout", () => this.history.pause())
    this.root.addEventListener("beforeinput", (event) => {
      const direction = { historyUndo: "undo", historyRedo: "redo" }[event.inputType] // from a menu: the field's own steps are not ours
      if (!direction) return
      event.preventDefault()
      this.travel(direction)
    })
  }

  render() {
    const focused = this.root.contains(document.activeElement) ? document.activeElement : null
    this.draw()
    // A card that is put elsewhere loses the focus.
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true })
  }

  draw() {
    const { plan, edited, damaged } = this.history.state
    const { images, texts } = plans.countsOf(plan)
    put(this.title, plan.title)
    put(this.language, plan.language)
    if (this.root.lang !== plan.language) this.root.lang = plan.language // costs the style of every card
    setText(this.counts, `${images} image${images === 1 ? "" : "s"}, ${texts} text${texts === 1 ? "" : "s"}`)
    setText(this.mark, edited ? "edited" : this.incoming?.plan ? "as it came in" : "")
    this.discard.hidden = !edited || !this.incoming?.plan
    this.back.disabled = !this.history.past.length
    this.forth.disabled = !this.history.future.length
    this.renderBanner()
    this.view.hidden = this.title.disabled = this.language.disabled = damaged !== null
    this.cast.update(plan)
    this.renderCards(plan)
    this.invitation.hidden = plan.segments.length > 0
    setText(this.invitation, edited ? "No cards left." : "A plan that is connected appears here when it has run. Or write your own story:")
  }

  renderCards(plan) {
    const segments = plan.segments.slice(0, this.shown)
    const ids = new Set(segments.map((segment) => segment.id))
    for (const [id, card] of this.cards) {
      if (ids.has(id)) continue
      card.root.remove()
      this.cards.delete(id)
    }
    const numbers = { text: 0, image: 0 }
    let place = this.list.firstElementChild
    for (const segment of segments) {
      const card = this.cardOf(segment)
      if (card.root === place) place = place.nextElementSibling
      else this.list.insertBefore(card.root, place)
      card.update(segment, (numbers[segment.type] += 1), plan)
    }
    const left = plan.segments.length - segments.length
    this.more.hidden = !left
    if (left) this.more.value = `Show more (${left} left)`
  }

  cardOf(segment) {
    let card = this.cards.get(segment.id)
    if (card && card.type !== segment.type) {
      card.root.remove()
      card = null
    }
    card ??= segment.type === "text" ? new TextCard(this, segment) : new ImageCard(this, segment)
    this.cards.set(segment.id, card)
    return card
  }

  showMore() {
    this.shown += FIRST_SHOWN
    this.render()
  }

  renderBanner() {
    const [text, actions] = this.bannerNow()
    const shown = JSON.stringify([text, Object.keys(actions)])
    this.banner.hidden = !text
    if (this.banner.shown === shown) return
    this.banner.shown = shown
    const buttons = Object.entries(actions).map(([label, press]) => button(label, press))
    this.banner.replaceChildren(element("span", { textContent: text }), ...buttons)
  }

  /** What the user has to know or decide first. */
  bannerNow() {
    const { base, edited, damaged, fault } = this.history.state
    const key = this.incoming?.key ?? null
    if (damaged !== null) {
      const text = `The edits saved in this workflow cannot be shown: ${fault}. They are kept as they are until you start over.`
      return [text, { "Start over": () => this.takeNew() }]
    }
    if (edited && key !== null && base !== key) {
      const then = this.incoming.waits ? "Nothing is drawn until you choose." : "Yours is used."
      const actions = { "Keep mine": () => this.keepMine(), "Take the new one": () => this.takeNew() }
      return [`Another plan came in since you edited this one. ${then}`, actions]
    }
    if (this.incoming?.waits && !edited) {
      return ["Nothing is drawn until you have looked the plan over.", { "Accept and run": () => this.acceptPlan() }]
    }
    return [(this.incoming?.notes ?? []).join(" "), {}]
  }

  acceptPlan() {
    this.keepMine()
    this.accept()
  }

  /** A sentence for a while, with a button that takes the last step back. */
  say(text, undo = "") {
    clearTimeout(this.silence)
    this.said.replaceChildren(element("span", { textContent: text }))
    if (undo) this.said.append(button(undo, () => this.travel("undo")))
    this.said.hidden = false
    this.silence = setTimeout(() => (this.said.hidden = true), SAID_MS)
  }
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text
}
