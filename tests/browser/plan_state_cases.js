// What the plan editor's state must do. Every exported function is one test; test_plan_state.py calls it with the module.

const equal = (got, wanted) => {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`got ${a}\nwanted ${b}`)
}
const ids = (plan) => plan.segments.map((segment) => segment.id)

function story(state) {
  let plan = { ...state.emptyPlan(), cast: [{ name: "Pip", kind: "character", look: "", outfits: [], references: [] }] }
  for (const type of ["text", "image", "text", "image"]) [plan] = state.withNew(plan, plan.segments.length, type)
  return state.withFields(plan, "p2", { prompt: "A ball.", cast: ["Pip"], references: ["p1", "Pip"] })
}

export function ids_stay_and_new_ones_are_free(state) {
  const plan = story(state)
  equal(ids(plan), ["t1", "p1", "t2", "p2"])
  const [more, id] = state.withNew(plan, 1, "image")
  equal([ids(more), id], [["t1", "p3", "p1", "t2", "p2"], "p3"])
}

export function an_id_that_a_reference_still_names_is_not_given_to_another_image(state) {
  const [plan, id] = state.withNew(state.without(story(state), "p1"), 0, "image")
  equal([id, plan.segments.at(-1).references], ["p3", ["p1", "Pip"]])
}

export function moving_counts_as_if_taken_out_first(state) {
  const plan = story(state)
  equal(ids(state.moved(plan, "t1", 2)), ["p1", "t2", "t1", "p2"])
  equal(ids(state.moved(plan, "p2", 0)), ["p2", "t1", "p1", "t2"])
  equal([state.moved(plan, "t1", -1) === plan, state.moved(plan, "p2", 99) === plan, state.moved(plan, "x", 0) === plan], [true, true, true])
}

export function a_change_leaves_every_other_segment_the_same_object(state) {
  const plan = story(state)
  const changed = state.withFields(plan, "p1", { prompt: "A fox." })
  equal(changed.segments.map((segment, index) => segment === plan.segments[index]), [true, false, true, true])
  equal([plan.segments[1].prompt, state.withFields(changed, "p1", { prompt: "A fox.", cast: [] }) === changed], ["", true])
}

export function renaming_and_removing_reach_every_image(state) {
  const plan = story(state)
  const renamed = state.withMemberFields(plan, 0, { name: "Mia" })
  equal([renamed.segments[3].cast, renamed.segments[3].references], [["Mia"], ["p1", "Mia"]])
  equal(renamed.segments[1] === plan.segments[1], true)
  const gone = state.withoutMember(plan, 0)
  equal([gone.cast, gone.segments[3].cast, gone.segments[3].references], [[], [], ["p1"]])
  equal(state.freeName(state.withMember(plan), 1, "Pip"), "Pip 2")
}

export function references_are_cast_pictures_and_earlier_images(state) {
  equal(state.referencesFor(story(state), "p2", ["picture-1"]), ["Pip", "picture-1", "p1"])
  equal(state.referencesFor(story(state), "p1", []), ["Pip"])
}

export function seeds_are_exact(state) {
  const wanted = { "": "auto", " Auto ": "auto", 7: 7, "9007199254740991": 9007199254740991, "9007199254740993": "9007199254740993" }
  for (const [text, seed] of Object.entries(wanted)) equal(state.seedFrom(text), seed)
  equal(state.seedFrom("18446744073709551615"), "18446744073709551615")
  equal(["18446744073709551616", "-1", "1.5", "0x1", "1e3", "x"].map(state.seedFrom), Array(6).fill(undefined))
}

export function aspects_and_sizes(state) {
  equal(state.shapeFrom(" 4 : 3 "), { aspect: "4:3", size: null })
  equal(state.shapeFrom("768 × 512"), { aspect: null, size: [768, 512] })
  equal(state.shapeFrom(""), { aspect: null, size: null })
  equal(["wide", "0:1", "21:1", "8x8", "99999x100", "4:3:2"].map(state.shapeFrom), Array(6).fill(undefined))
}

export function languages_are_codes(state) {
  equal(["", " de ", "zh-Hant", "en-GB"].map(state.languageFrom), ["en", "de", "zh-Hant", "en-GB"])
  equal(["d", "German!", "de_DE", "<b>", "a-b-c-d-e-f-g"].map(state.languageFrom), Array(5).fill(undefined))
  const plan = story(state)
  equal([state.withLanguage(plan, "de").language, state.withLanguage(plan, "en") === plan], ["de", true])
}

export function outfits_stand_one_a_line(state) {
  equal(state.linesFrom(" red coat, blue hat \n\n pyjamas\u0000\nred coat, blue hat\n"), ["red coat, blue hat", "pyjamas"])
  equal(state.linesFrom("x".repeat(300)).map((name) => name.length), [200])
}

export function a_member_is_shown_by_pictures_and_by_what_it_names_already(state) {
  equal(state.picturesFor(story(state), { references: ["p1", "picture-1"] }, ["picture-1", "picture-2"]), ["picture-1", "picture-2", "p1"])
}

export function what_nobody_sees_is_taken_out(state) {
  equal(state.clean("a\u0000b\u0007\n\tc\ud800d😀\ufffe"), "ab\n\tcd😀")
  equal(state.cleanName("  Pip \n the\tfox "), "Pip the fox")
}

export function letters_in_a_row_are_one_step_back(state) {
  const history = new state.History("0")
  history.step("a", "t1.text")
  history.step("ab", "t1.text")
  history.pause()
  history.step("abc", "t1.text")
  history.step("moved")
  equal([history.undo(), history.state], [true, "abc"])
  equal([history.undo(), history.state, history.undo(), history.state, history.undo()], [true, "ab", true, "0", false])
  equal([history.redo(), history.state], [true, "ab"])
  history.step("other")
  equal([history.redo(), history.state, history.undo(), history.state], [false, "other", true, "ab"])
}

export function what_is_written_is_read_back(state) {
  const plan = story(state)
  equal(state.readEdits(state.writeEdits(plan, "k")), { plan, base: "k" })
  equal([state.readEdits(""), state.readEdits(null)], [null, null])
  const bare = { format: "weaver-plan", version: 1, segments: [{ type: "image", id: "p1", prompt: "A cat." }] }
  const read = state.readEdits(JSON.stringify({ format: "weaver-plan-edits", version: 1, base: null, plan: bare }))
  equal([read.plan.title, read.plan.cast, read.plan.segments[0].references], ["", [], "auto"])
}

export function what_is_damaged_is_told_and_never_throws(state) {
  const whole = JSON.parse(state.writeEdits(story(state), null))
  const spoilt = [
    "{", "5", "null", "[]", '"x"', "x".repeat(17 * 2 ** 20), 5, {},
    JSON.stringify({ ...whole, version: 2 }), JSON.stringify({ ...whole, plan: null }),
    JSON.stringify({ ...whole, plan: { ...whole.plan, segments: null } }), JSON.stringify({ ...whole, plan: { ...whole.plan, cast: [null] } }),
  ]
  const damages = [
    null, 5, "x", [], { type: "video", id: "v1" }, { type: "text", id: "t1" }, { type: "text", id: 1, text: "" },
    { type: "image", id: "p9", prompt: 1 }, { type: "image", prompt: "" },
    { type: "image", id: "p9", prompt: "", cast: "Pip" }, { type: "image", id: "p9", prompt: "", size: "big" },
    { type: "image", id: "p9", prompt: "", seed: {} },
    { type: "text", id: "p1", text: "the same id again" },
  ]
  for (const damage of damages) {
    const segments = [...whole.plan.segments.filter((segment) => segment.id !== "t1"), damage]
    if (damage?.id === "t1") segments.push(whole.plan.segments[0])
    spoilt.push(JSON.stringify({ ...whole, plan: { ...whole.plan, segments } }))
  }
  for (const text of spoilt) {
    const { fault } = state.readEdits(text) ?? {}
    if (typeof fault !== "string") throw new Error(`no fault was found in ${String(text).slice(0, 400)}`)
  }
}
