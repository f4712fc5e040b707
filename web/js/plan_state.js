// The plan that Edit Plan edits, without any page: plans and their changes, undo, and what is kept in the workflow. No side effects.
//
// A plan is the library's JSON (weaver_core/plan.py). Plans are never changed, only replaced, and whatever did not change is the
// same object in both: so a step back costs nothing, and a view sees by `===` what it has to draw anew.

const FORMAT = "weaver-plan-edits"
const VERSION = 1
const PLAN_FORMAT = "weaver-plan"
const PLAN_VERSION = 1
const MAX_STEPS = 500
const MAX_EDITS = 16 * 2 ** 20 // characters, as in the node
const MAX_SEED = 2n ** 64n - 1n
const MAX_SIDE = [16, 16384]
const MAX_NAME = 200 // characters
const LANGUAGE = /^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}$/
const PREFIX = { text: "t", image: "p" }
// The same that weaver_core/segments.py refuses, which nobody can see and therefore nobody can remove by hand.
const ILLEGAL = new RegExp("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x84\\x86-\\x9f\\ufffe\\uffff]|\\p{Surrogate}", "gu")

// In the library's order of keys, so that a plan that was read is written as it stood.
const EMPTY_IMAGE = {
  type: "image", id: undefined, prompt: "", cast: [], references: "auto", size: null, aspect: null, seed: "auto", locked: false,
}
const EMPTY_MEMBER = { name: "", kind: "character", look: "", outfits: [], references: [] }

export const emptyPlan = () => ({
  format: PLAN_FORMAT, version: PLAN_VERSION, title: "", language: "en", cast: [], segments: [],
})

/** Text without what no plan can store. */
export const clean = (text) => text.replace(ILLEGAL, "")

/** A name on one line. */
export const cleanName = (text) => clean(text).replace(/\s+/g, " ").trim()

// ---- looking at it

const imagesOf = (plan) => plan.segments.filter((segment) => segment.type === "image")

export const namesOf = (plan) => plan.cast.map((member) => member.name).filter((name) => name.trim())

/** An id that no segment has, nor any reference names: the smallest free number, as the library counts. */
function freshId(plan, type) {
  const taken = new Set(plan.segments.map((segment) => segment.id))
  for (const { references } of [...imagesOf(plan), ...plan.cast]) {
    if (Array.isArray(references)) references.forEach((name) => taken.add(name))
  }
  let number = 1
  while (taken.has(`${PREFIX[type]}${number}`)) number += 1
  return `${PREFIX[type]}${number}`
}

/** What an image may name as references: the cast, the user's pictures, and the images before it. */
export function referencesFor(plan, id, pictures) {
  const images = imagesOf(plan).map((segment) => segment.id)
  return [...new Set([...namesOf(plan), ...pictures, ...images.slice(0, Math.max(0, images.indexOf(id)))])]
}

/** What a member of the cast may be shown by: the user's pictures, and the images that it names already. */
export const picturesFor = (plan, member, pictures) => [...new Set([...pictures, ...member.references])]

/** "4 images, 5 texts": what the plan holds, empty cards aside. */
export function countsOf(plan) {
  let images = 0
  let texts = 0
  for (const segment of plan.segments) {
    if (segment.type === "image") images += segment.prompt.trim() !== ""
    else texts += segment.text.trim() !== ""
  }
  return { images, texts }
}

// ---- changing it

/** The plan with a new, empty segment before the one at `index`; and its id. */
export function withNew(plan, index, type) {
  const id = freshId(plan, type)
  const segment = type === "text" ? { type, id, text: "" } : { ...EMPTY_IMAGE, id }
  return [{ ...plan, segments: plan.segments.toSpliced(index, 0, segment) }, id]
}

export const without = (plan, id) => ({ ...plan, segments: plan.segments.filter((segment) => segment.id !== id) })

/** The plan with the segment at another place: `index` counts as if it had been taken out first. */
export function moved(plan, id, index) {
  const from = plan.segments.findIndex((segment) => segment.id === id)
  const to = Math.min(Math.max(index, 0), plan.segments.length - 1)
  if (from < 0 || from === to) return plan
  return { ...plan, segments: plan.segments.toSpliced(from, 1).toSpliced(to, 0, plan.segments[from]) }
}

/** The plan with some fields of a segment changed; the same plan when they are as they were. */
export function withFields(plan, id, fields) {
  const index = plan.segments.findIndex((segment) => segment.id === id)
  if (index < 0 || Object.entries(fields).every(([name, value]) => isSame(plan.segments[index][name], value))) return plan
  return { ...plan, segments: plan.segments.with(index, { ...plan.segments[index], ...fields }) }
}

const isSame = (a, b) => a === b || (Array.isArray(a) && JSON.stringify(a) === JSON.stringify(b))

export const withTitle = (plan, title) => (title === plan.title ? plan : { ...plan, title })

export const withLanguage = (plan, language) => (language === plan.language ? plan : { ...plan, language })

export const withMember = (plan) => ({ ...plan, cast: [...plan.cast, { ...EMPTY_MEMBER }] })

/** The plan with a changed member of the cast; who is renamed is so in every image. */
export function withMemberFields(plan, index, fields) {
  const before = plan.cast[index]
  const cast = plan.cast.with(index, { ...before, ...fields })
  if (fields.name === undefined || fields.name === before.name || !before.name) return { ...plan, cast }
  return { ...plan, cast, segments: plan.segments.map((segment) => renamed(segment, before.name, fields.name)) }
}

/** The plan without a member of the cast, who is then in no image either. */
export function withoutMember(plan, index) {
  const { name } = plan.cast[index]
  return { ...plan, cast: plan.cast.toSpliced(index, 1), segments: plan.segments.map((segment) => renamed(segment, name, "")) }
}

function renamed(segment, from, to) {
  if (segment.type !== "image") return segment
  const change = (names) => {
    if (!Array.isArray(names) || !names.includes(from)) return names
    return [...new Set(names.map((name) => (name === from ? to : name)).filter(Boolean))]
  }
  const cast = change(segment.cast)
  const references = change(segment.references)
  return cast === segment.cast && references === segment.references ? segment : { ...segment, cast, references }
}

/** The name with a number behind, if another member of the cast has it. */
export function freeName(plan, index, name) {
  const others = new Set(plan.cast.filter((_, other) => other !== index).map((member) => member.name))
  let free = name
  for (let number = 2; name && others.has(free); number += 1) free = `${name} ${number}`
  return free
}

export const toggled = (names, name) => (names.includes(name) ? names.filter((other) => other !== name) : [...names, name])

// ---- fields that are typed; `undefined` is what cannot be read

/** "" -> auto; a whole number below 2^64, as text where JavaScript cannot hold it. */
export function seedFrom(text) {
  const typed = text.trim().toLowerCase()
  if (typed === "" || typed === "auto") return "auto"
  if (!/^[0-9]{1,20}$/.test(typed) || BigInt(typed) > MAX_SEED) return undefined
  return Number.isSafeInteger(Number(typed)) ? Number(typed) : BigInt(typed).toString()
}

/** "" -> as the request says; "4:3"; "768x512". */
export function shapeFrom(text) {
  const typed = text.replace(/\s/g, "").toLowerCase()
  if (typed === "" || typed === "auto") return { aspect: null, size: null }
  const ratio = /^([1-9][0-9]{0,3}):([1-9][0-9]{0,3})$/.exec(typed)
  if (ratio) return ratio[1] / ratio[2] <= 20 && ratio[2] / ratio[1] <= 20 ? { aspect: typed, size: null } : undefined
  const sides = /^([0-9]{2,5})[x×*]([0-9]{2,5})$/.exec(typed)?.slice(1).map(Number)
  if (!sides?.every((side) => side >= MAX_SIDE[0] && side <= MAX_SIDE[1])) return undefined
  return { aspect: null, size: sides }
}

export const shapeText = (image) => (image.size ? image.size.join("x") : image.aspect ?? "")

/** "" -> English, which is what a plan without a language is in; a code such as "de" or "zh-Hant". */
export function languageFrom(text) {
  const typed = text.trim()
  if (typed === "") return "en"
  return LANGUAGE.test(typed) ? typed : undefined
}

/** One name a line, as they are shown; a name that stands there twice counts once. */
export const linesFrom = (text) => [...new Set(text.split("\n").map((line) => cleanName(line).slice(0, MAX_NAME).trim()).filter(Boolean))]

export const seedText = (image) => (image.seed === "auto" ? "" : String(image.seed))

export const randomSeed = () => Math.floor(Math.random() * 2 ** 32)

// ---- what is kept in the workflow

export const writeEdits = (plan, base) => JSON.stringify({ format: FORMAT, version: VERSION, base, plan })

/** {plan, base}; null for nothing; {fault} says why it cannot be shown. Whether the plan can be used is for the node to say. */
export function readEdits(text) {
  if (text === null || text === undefined || text === "") return null
  if (typeof text !== "string") return { fault: "they are not text" }
  if (text.length > MAX_EDITS) return { fault: `they have ${Math.round(text.length / 2 ** 20)} million characters` }
  let data
  try {
    data = JSON.parse(text)
  } catch {
    return { fault: "they are not JSON" }
  }
  if (data?.format !== FORMAT) return { fault: "they are not from this editor" }
  if (data.version !== VERSION) return { fault: "they were made by another version of this node" }
  const plan = filled(data.plan)
  const fault = faultOf(plan)
  return fault ? { fault } : { plan, base: typeof data.base === "string" ? data.base : null }
}

/** The plan with the fields that the library lets be left out. */
function filled(plan) {
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value)
  const fill = (items, defaults) =>
    Array.isArray(items) ? items.map((item) => (isObject(item) ? { ...defaults(item), ...item } : item)) : items
  if (!isObject(plan)) return plan
  const cast = fill(plan.cast ?? [], () => EMPTY_MEMBER)
  const segments = fill(plan.segments, (segment) => (segment.type === "image" ? EMPTY_IMAGE : {}))
  return { ...emptyPlan(), ...plan, format: plan.format, version: plan.version, cast, segments }
}

const isText = (value) => typeof value === "string"
const isNames = (value) => Array.isArray(value) && value.every(isText)

/** What keeps the view from showing a plan; null when nothing does. */
function faultOf(plan) {
  if (plan?.format !== PLAN_FORMAT || plan.version !== PLAN_VERSION) return "the plan in them is of another version"
  if (!isText(plan.title) || !isText(plan.language)) return "the plan in them has no title or language"
  if (!Array.isArray(plan.cast) || !plan.cast.every(isMember)) return "a member of the cast is damaged"
  if (!Array.isArray(plan.segments)) return "the plan in them has no segments"
  const damaged = plan.segments.findIndex((segment) => !isSegment(segment))
  if (damaged >= 0) return `segment ${damaged + 1} is damaged`
  const ids = new Set(plan.segments.map((segment) => segment.id))
  return ids.size === plan.segments.length ? null : "two segments have the same id"
}

const isMember = (member) =>
  isText(member?.name) && isText(member.kind) && isText(member.look) && isNames(member.outfits) && isNames(member.references)

function isSegment(segment) {
  if (!isText(segment?.id)) return false
  if (segment.type === "text") return isText(segment.text)
  return (
    segment.type === "image" && isText(segment.prompt) && isNames(segment.cast) &&
    (segment.references === "auto" || isNames(segment.references)) &&
    (segment.aspect === null || isText(segment.aspect)) &&
    (segment.size === null || (Array.isArray(segment.size) && segment.size.every(Number.isInteger))) &&
    (isText(segment.seed) || Number.isInteger(segment.seed)) && typeof segment.locked === "boolean"
  )
}

// ---- steps back and forth

/** States one after the other. A state is {plan, base, edited}: `edited` false = the plan goes on as it came in. */
export class History {
  constructor(state) {
    this.state = state
    this.past = []
    this.future = []
    this.kind = null
  }

  /** A new state. Steps of one `kind` in a row, such as letters typed into one field, are one step back. */
  step(state, kind = null) {
    if (state === this.state) return
    if (kind === null || kind !== this.kind) {
      this.past.push(this.state)
      if (this.past.length > MAX_STEPS) this.past.shift()
    }
    this.state = state
    this.future = []
    this.kind = kind
  }

  /** What comes next is a step of its own. */
  pause() {
    this.kind = null
  }

  /** Another state in place of the present one, which is no step of the user's. */
  replace(state) {
    this.state = state
    this.kind = null
  }

  undo() {
    return this.#go(this.past, this.future)
  }

  redo() {
    return this.#go(this.future, this.past)
  }

  #go(from, to) {
    if (!from.length) return false
    to.push(this.state)
    this.state = from.pop()
    this.kind = null
    return true
  }
}
