// The cast in the plan editor: everyone who is to look the same on every page, with looks, outfits and pictures. No side effects.
import { element } from "./dom.js"
import { button, chip, chipsOf, iconButton, lines, put, shortText, textArea } from "./plan_editor_parts.js"
import {
  clean, cleanName, freeName, linesFrom, namesOf, picturesFor, toggled, withMember, withMemberFields, withoutMember,
} from "./plan_state.js"

export class CastList {
  constructor(editor) {
    this.editor = editor
    this.open = false
    this.rows = []
    this.summary = button("Cast", () => this.toggle(), { className: "weaver-edit-button weaver-edit-opens" })
    this.list = element("ul", { className: "weaver-edit-members", hidden: true })
    this.adder = button("+ character or place", () => this.add(), { hidden: true })
    this.root = element("section", { className: "weaver-edit-cast", ariaLabel: "Cast" }, this.summary, this.list, this.adder)
  }

  toggle() {
    this.open = !this.open
    this.update(this.editor.history.state.plan)
  }

  add() {
    this.editor.act(withMember)
    this.rows.at(-1).name.focus()
  }

  remove(index) {
    const name = this.editor.history.state.plan.cast[index].name || "An empty member"
    this.editor.act((plan) => withoutMember(plan, index))
    this.adder.focus()
    this.editor.say(`${name} left the cast`, "Undo")
  }

  /** A name is taken when it has been typed to the end: letter by letter, it would pass through the names of others. */
  rename(index, text) {
    this.editor.act((plan) => withMemberFields(plan, index, { name: freeName(plan, index, cleanName(text)) }))
    return true
  }

  update(plan) {
    const names = namesOf(plan).join(", ")
    this.summary.value = `${this.open ? "▾" : "▸"} Cast: ${names || "nobody yet"}`
    this.summary.ariaLabel = `Cast: ${names || "nobody yet"}`
    this.summary.ariaExpanded = String(this.open)
    this.list.hidden = this.adder.hidden = !this.open
    if (!this.open) return
    while (this.rows.length > plan.cast.length) this.rows.pop().root.remove()
    while (this.rows.length < plan.cast.length) {
      this.rows.push(this.row(this.rows.length))
      this.list.append(this.rows.at(-1).root)
    }
    plan.cast.forEach((member, index) => {
      const row = this.rows[index]
      put(row.name, member.name)
      put(row.look, member.look)
      put(row.outfits, member.outfits.join("\n"))
      row.place.ariaPressed = String(member.kind === "place")
      const pictures = picturesFor(plan, member, this.editor.pictures)
      row.shown.hidden = !pictures.length
      chipsOf(row.pictures, pictures, (name) => member.references.includes(name), (name) => {
        this.editor.act((changed) => withMemberFields(changed, index, { references: toggled(changed.cast[index].references, name) }))
      })
    })
  }

  row(index) {
    const change = (fields, kind) => this.editor.act((plan) => withMemberFields(plan, index, fields), `cast.${index}.${kind}`)
    const name = shortText(`Name ${index + 1}`, { placeholder: "Name", className: "weaver-edit-member-name" }, (text) => this.rename(index, text))
    const look = textArea(`Look of ${index + 1}`, { placeholder: "Look: what stays the same on every page", className: "weaver-edit-look" }, (text) =>
      change({ look: clean(text) }, "look"),
    )
    const wears = { placeholder: "Outfits: one a line, such as red raincoat", className: "weaver-edit-outfits", title: "What they may wear, one outfit a line" }
    const outfits = lines(`Outfits of ${index + 1}`, wears, (text) => {
      this.editor.act((plan) => withMemberFields(plan, index, { outfits: linesFrom(text) }))
      return true
    })
    const pictures = element("div", { className: "weaver-edit-chips", role: "group", ariaLabel: `Pictures of ${index + 1}` })
    const shown = element("div", { className: "weaver-edit-member-pictures" }, element("span", { textContent: "Pictures" }), pictures)
    const place = chip("Place", false, () => {
      const { kind } = this.editor.history.state.plan.cast[index]
      this.editor.act((plan) => withMemberFields(plan, index, { kind: kind === "place" ? "character" : "place" }))
    }, "A place, not a character")
    const bin = iconButton("bin", `Take member ${index + 1} out of the cast`, () => this.remove(index))
    const head = element("div", { className: "weaver-edit-member-head" }, name, place, bin)
    const root = element("li", { className: "weaver-edit-member" }, head, look, outfits, shown)
    return { root, name, look, outfits, place, pictures, shown }
  }
}
