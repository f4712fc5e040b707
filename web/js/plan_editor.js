// Edit Plan: binds the plan editor to its node. What is edited is kept in the node's widget `edits`, and so in the workflow.
import { app } from "../../../scripts/app.js"
import { element, keepInSight, loadStyles, placeOf } from "./dom.js"
import { holdSeeds } from "./page_changes.js"
import { PlanEditor } from "./plan_editor_view.js"
import { tellComfy } from "./tell_comfy.js"

const NODE = "WeaverEditPlan"
const SIZE = [640, 780]
const MIN_HEIGHT = 320
const QUIET_MS = 400 // after the last change, before ComfyUI is told that the graph has changed

/** What editors have shown, by graph and node: ComfyUI makes all nodes anew when it undoes something or changes the tab. */
const remembered = new Map()

function bind(node) {
  const widget = node.widgets.find(({ name }) => name === "edits")
  widget.hidden = true
  let timer = 0
  const tell = () => {
    clearTimeout(timer)
    timer = 0
    tellComfy()
  }
  const editor = new PlanEditor({
    save(text) {
      widget.value = text
      node.graph?.setDirtyCanvas?.(true, false)
      clearTimeout(timer)
      timer = setTimeout(tell, QUIET_MS)
    },
    holdSeeds: (seeds) => {
      holdSeeds(seeds)
      tellComfy()
    },
    accept: () => app.queuePrompt(0, 1),
  })
  editor.root.addEventListener("focusout", () => timer && tell())
  const frame = element("div", { className: "weaver-edit-frame" }, editor.root)
  const shown = node.addDOMWidget("editor", "weaver_plan_editor", frame, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => MIN_HEIGHT,
  })
  shown.serialize = false // the option keeps it out of the prompt, this one out of the saved workflow
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])
  return { editor, widget, frame }
}

/** The prompt is asked for only where no plan brings its own. */
function hidePrompt(node) {
  const prompt = node.widgets?.find(({ name }) => name === "prompt")
  const plan = node.inputs?.find(({ name }) => name === "plan")
  if (prompt) prompt.hidden = (plan?.link ?? null) !== null
}

/** Shows what the node holds, after a workflow was loaded into it. */
function restore(node) {
  const { editor, widget } = node.weaverPlan
  const known = node.graph && remembered.get(placeOf(node)) // a copy that is not in the graph yet has no place
  if (known && known !== editor) editor.resume(known)
  editor.read(widget.value)
  hidePrompt(node)
  if (node.graph) remembered.set(placeOf(node), editor)
}

app.registerExtension({
  name: "Weaver.PlanEditor",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return
    loadStyles("plan_editor.css")

    const onNodeCreated = nodeType.prototype.onNodeCreated
    nodeType.prototype.onNodeCreated = function () {
      onNodeCreated?.apply(this, arguments)
      this.weaverPlan = bind(this)
    }

    const onAdded = nodeType.prototype.onAdded
    nodeType.prototype.onAdded = function () {
      onAdded?.apply(this, arguments)
      keepInSight(this, this.weaverPlan.editor.root, this.weaverPlan.frame)
    }

    const onConfigure = nodeType.prototype.onConfigure
    nodeType.prototype.onConfigure = function () {
      onConfigure?.apply(this, arguments)
      restore(this)
    }

    const onConnectionsChange = nodeType.prototype.onConnectionsChange
    nodeType.prototype.onConnectionsChange = function () {
      onConnectionsChange?.apply(this, arguments)
      hidePrompt(this)
    }

    const onExecuted = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (message) {
      onExecuted?.apply(this, arguments)
      const incoming = message?.weaver_edit_plan?.[0]
      if (!incoming) return
      this.weaverPlan.editor.receive(incoming)
      remembered.set(placeOf(this), this.weaverPlan.editor)
    }
  },
})
