// The cards of the plan editor: one for every text and image of the plan. No side effects.
import { element } from "./dom.js"
import { letDrag } from "./plan_editor_drag.js"
import { button, chip, chipsOf, iconButton, labelled, put, shortText, textArea } from "./plan_editor_parts.js"
import { clean, namesOf, randomSeed, referencesFor, seedFrom, seedText, shapeFrom, shapeText, toggled } from "./plan_state.js"

const MOVES = "Drag, or press Alt+Up and Alt+Down, to move"

/** What both kinds have. `editor` is told what the user does; `update` shows a segment, and draws only what has changed. */
class Card {
  constructor(editor, segment) {
    this.editor = editor
    this.id = segment.id
    this.type = segment.type
    this.segment = null
    this.plan = null
    this.handle = iconButton("handle", MOVES, () => {})
    this.handle.addEventListener("keydown", (event) => this.key(event))
    this.name = element("span", { className: "weaver-edit-card-name" })
    this.tools = element("div", { className: "weaver-edit-card-tools" })
    this.bin = iconButton("bin", "Delete", () => editor.remove(this.id))
    const between = element(
      "div", { className: "weaver-edit-between" },
      button("+ text", () => editor.add("text", this.id), { tabIndex: -1, title: "A new text here" }),
      button("+ image", () => editor.add("image", this.id), { tabIndex: -1, title: "A new image here" }),
    )
    this.head = element("div", { className: "weaver-edit-card-head" }, this.handle, this.name, this.tools)
    this.body = element("div", { className: `weaver-edit-card weaver-edit-card-${this.type}` }, this.head)
    this.root = element("li", { className: "weaver-edit-item" }, between, this.body)
    this.root.dataset.id = this.id
    letDrag(this.handle, this.root, editor.list, editor.view, (index) => editor.move(this.id, index))
  }

  key(event) {
    const offset = { ArrowUp: -1, ArrowDown: 1 }[event.key]
    if (offset && !event.altKey) this.editor.moveBy(this.id, offset)
    else if (event.key === "Delete" || event.key === "Backspace") this.editor.remove(this.id)
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  write(fields, kind) {
    this.editor.change(this.id, fields, kind && `${this.id}.${kind}`)
  }

  update(segment, number, plan) {
    if (this.number !== number) {
      this.number = number
      const word = this.type === "text" ? "Text" : "Image"
      this.name.textContent = `${word} ${number}`
      this.handle.ariaLabel = `${word} ${number}. ${MOVES}`
      this.bin.ariaLabel = `Delete ${word.toLowerCase()} ${number}`
      this.main.ariaLabel = this.type === "text" ? `Text ${number}` : `Dense prompt of image ${number}`
    }
    if (segment === this.segment && plan.cast === this.plan?.cast && !this.open) return
    const before = this.segment
    this.segment = segment
    this.plan = plan
    this.show(before)
  }
}

export class TextCard extends Card {
  constructor(editor, segment) {
    super(editor, segment)
    this.main = textArea("", { className: "weaver-edit-text", placeholder: "What the story tells here" }, (text) =>
      this.write({ text: clean(text) }, "text"),
    )
    this.tools.append(this.bin)
    this.body.append(this.main)
  }

  show() {
    put(this.main, this.segment.text)
  }
}

export class ImageCard extends Card {
  constructor(editor, segment) {
    super(editor, segment)
    this.open = false
    const hint = "What the image shows: who, where, doing what, in which light"
    this.main = textArea("", { className: "weaver-edit-prompt", placeholder: hint }, (text) => this.write({ prompt: clean(text) }, "prompt"))
    const lockHint = "Keep the picture that was drawn for this dense prompt, whatever else changes"
    this.lock = chip("Lock", false, () => this.write({ locked: !this.segment.locked }), lockHint)
    this.label = element("span", { className: "weaver-edit-card-id", textContent: segment.id, title: "The id by which other images name this one" })
    this.name.after(this.label)
    this.tools.append(this.lock, this.bin)
    this.cast = element("div", { className: "weaver-edit-chips", role: "group" })
    const shapeHint = "Aspect such as 4:3, or size such as 768x512"
    const shape = { placeholder: "auto", className: "weaver-edit-shape", title: shapeHint }
    this.shape = shortText("", shape, (text) => this.commitShape(text))
    this.shape.setAttribute("list", editor.aspects.id)
    const seed = { placeholder: "auto", className: "weaver-edit-seed", inputMode: "numeric", title: "auto = from the story's seed" }
    this.seed = shortText("", seed, (text) => this.commitSeed(text))
    this.dice = iconButton("dice", "Another seed", () => this.write({ seed: randomSeed() }))
    const opens = { className: "weaver-edit-chip weaver-edit-opens", title: "What the image must be consistent with" }
    this.references = button("", () => this.toggle(), opens)
    this.choices = element("div", { className: "weaver-edit-chips weaver-edit-choices", role: "group", hidden: true })
    this.body.append(
      this.main,
      element(
        "div", { className: "weaver-edit-details" },
        this.cast, labelled("Aspect", this.shape), labelled("Seed", this.seed, this.dice), this.references,
      ),
      this.choices,
    )
  }

  update(segment, number, plan) {
    if (this.number !== number) {
      this.cast.ariaLabel = `Cast of image ${number}`
      this.shape.ariaLabel = `Aspect or size of image ${number}`
      this.seed.ariaLabel = `Seed of image ${number}`
      this.dice.ariaLabel = `Another seed for image ${number}`
      this.lock.ariaLabel = `Lock image ${number}`
      this.choices.ariaLabel = `References of image ${number}`
    }
    super.update(segment, number, plan)
  }

  show() {
    const { segment } = this
    put(this.main, segment.prompt)
    put(this.shape, shapeText(segment))
    put(this.seed, seedText(segment))
    this.lock.ariaPressed = String(segment.locked)
    this.lock.value = segment.locked ? "Locked" : "Lock"
    this.showCast()
    const named = segment.references === "auto" ? "auto" : segment.references.join(", ") || "none"
    const summary = `References: ${named.length > 40 ? `${segment.references.length} chosen` : named}`
    this.references.value = `${summary} ${this.open ? "▴" : "▾"}`
    this.references.ariaLabel = summary
    this.references.ariaExpanded = String(this.open)
    this.choices.hidden = !this.open
    if (this.open) this.showChoices()
  }

  showCast() {
    const names = [...new Set([...namesOf(this.plan), ...this.segment.cast])]
    const on = (name) => this.segment.cast.includes(name)
    chipsOf(this.cast, names, on, (name) => this.write({ cast: toggled(this.segment.cast, name) }))
    this.cast.hidden = !names.length
  }

  showChoices() {
    const { references } = this.segment
    const chosen = references === "auto" ? [] : references
    const names = [...new Set([...referencesFor(this.plan, this.id, this.editor.pictures), ...chosen])]
    const on = (name) => (name === "auto" ? references === "auto" : name === "none" ? references.length === 0 : chosen.includes(name))
    chipsOf(this.choices, ["auto", "none", ...names], on, (name) => {
      this.write({ references: name === "auto" ? "auto" : name === "none" ? [] : toggled(chosen, name) })
    })
  }

  toggle() {
    this.open = !this.open
    this.show()
  }

  commitShape(text) {
    const shape = shapeFrom(text)
    if (shape) this.write(shape)
    else this.editor.say(`"${text}" is no aspect; write one such as 4:3, a size such as 768x512, or nothing`)
    return shape !== undefined
  }

  commitSeed(text) {
    const seed = seedFrom(text)
    if (seed !== undefined) this.write({ seed })
    else this.editor.say(`"${text}" is no seed; write a whole number below 2^64, or nothing for auto`)
    return seed !== undefined
  }
}
