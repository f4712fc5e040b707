// The small parts that the plan editor is made of. No side effects.
//
// Everything that can be focused is an <input> or a <textarea>, buttons too: ComfyUI's own undo and shortcuts leave those alone.
import { element } from "./dom.js"

export function button(label, press, properties = {}) {
  const made = element("input", { type: "button", value: label, className: "weaver-edit-button", ...properties })
  made.addEventListener("click", press)
  return made
}

/** A button with a picture from the style sheet; `label` is its name for those who do not see it, and its tooltip. */
export function iconButton(icon, label, press) {
  const made = button("", press, { className: `weaver-edit-icon weaver-edit-icon-${icon}`, title: label })
  made.ariaLabel = label
  return made
}

/** A button that is on or off. */
export function chip(label, on, press, title = "") {
  const made = button(label, press, { className: "weaver-edit-chip", title })
  made.ariaPressed = String(on)
  return made
}

/** One chip for every name; those that are there stay, so that the focus does too. */
export function chipsOf(group, names, on, press) {
  const before = [...group.children]
  const same = before.length === names.length && before.every((made, index) => made.value === names[index])
  if (!same) group.replaceChildren(...names.map((name) => chip(name, on(name), () => group.press(name))))
  group.press = press
  for (const made of group.children) made.ariaPressed = String(on(made.value))
}

/** A text that grows with what is written in it; `write(text)` is told every change. */
export function textArea(label, properties, write) {
  const made = element("textarea", { rows: 1, ...properties })
  made.ariaLabel = label
  made.addEventListener("input", () => {
    write(made.value)
    grow(made)
  })
  return made
}

/** A short text; `commit(text)` is told when it has been typed to the end, and says whether it can be read. */
export function shortText(label, properties, commit) {
  return takenWhole(element("input", { type: "text", spellcheck: false, autocomplete: "off", ...properties }), label, commit)
}

/** Several names, one a line; `commit(text)` as for a short text. */
export function lines(label, properties, commit) {
  const made = takenWhole(element("textarea", { rows: 1, ...properties }), label, commit)
  made.addEventListener("input", () => grow(made))
  return made
}

/** Fields whose text counts when it has been typed to the end. */
const halfTyped = new WeakSet()

function takenWhole(field, label, commit) {
  field.ariaLabel = label
  field.addEventListener("input", () => halfTyped.add(field))
  field.addEventListener("change", () => {
    halfTyped.delete(field)
    field.ariaInvalid = String(!commit(field.value))
  })
  return field
}

/** Takes what is being typed in this field, though it has not been left. */
export function takeTyped(field) {
  if (halfTyped.has(field)) field.dispatchEvent(new Event("change"))
}

/** A label before a field. */
export const labelled = (text, ...fields) =>
  element("label", { className: "weaver-edit-labelled" }, element("span", { textContent: text }), ...fields)

/** Puts a value into a field; one that is there already keeps its cursor, and one that is being typed in is left alone. */
export function put(field, value) {
  if (halfTyped.has(field) && document.activeElement === field) return
  if (field.value !== value) field.value = value
  if (field.ariaInvalid === "true") field.ariaInvalid = "false"
  if (field.localName === "textarea") grow(field)
}

const growsItself = globalThis.CSS?.supports?.("field-sizing", "content") ?? false

/** The height that the text needs, for browsers whose style sheets cannot say so. */
function grow(area) {
  if (growsItself || !area.isConnected) return
  area.style.height = "0"
  area.style.height = `${area.scrollHeight}px`
}
