// Preview Story: the book view in the node. Here it meets ComfyUI: nodes, the websocket, the graph and the queue.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { BookView } from "./book_view.js"
import { lookAt } from "./book_zoom.js"
import { keepInSight, loadStyles } from "./dom.js"
import { comesBefore, nodesAt, rootGraph } from "./graph_walk.js"
import { carrierOf, changeOf, changesOf, drawAgain, drawStale, holdSeeds, showOrHide, withChange, writeChanges } from "./page_changes.js"

const NODE = "WeaverPreviewStory"
const CARRIERS = ["WeaverVisualizePlan", "WeaverVisualizeWithModel", "WeaverInterleave"]
const SIZE = [620, 680]
const MIN_HEIGHT = 260
const LAST_RUNS = 32 // of ComfyUI's history that are looked through for the story that was here before a reload

const previews = new Set() // the Preview Story nodes there are

/** What the buttons of the book in this node do. */
function actionsOf(node) {
  const change = (page, fields) => changeAll([[page, fields]])
  const changeAll = (list) => {
    const carrier = carrierOf(node)
    if (!carrier) return
    writeChanges(carrier, list.reduce((changes, [page, fields]) => withChange(changes, page, fields), changesOf(carrier)))
    return again()
  }
  const again = () => {
    holdSeeds(node.weaverBook.book.seeds)
    return drawAgain(node)
  }
  return {
    isReady: () => node.weaverBook.run === null && Boolean(node.weaverBook.book.seeds),
    changes() {
      const carrier = carrierOf(node)
      if (!carrier) return null
      const changes = changesOf(carrier)
      return { count: changes.length, of: (page) => changeOf(changes, page) }
    },
    whyNot: () =>
      carrierOf(node)
        ? "This page can be changed when the run has ended."
        : "To change pages here, connect Preview Story to Visualize Plan, Visualize with Your Model or Interleave.",
    look: (number, how) => lookAt(node.weaverBook.book, number, node.weaverActions, how),
    reroll: (page) => change(page, { seed: Math.floor(Math.random() * 2 ** 50) }),
    edit: (page, prompt) => change(page, { prompt }),
    lock: (page, locked) => change(page, locked ? { locked, kept: page.picture.kept } : { locked: undefined, kept: undefined }),
    reference: (page, others) => changeAll(others.map((other) => [other, { reference: page.id }])),
    undo(page) {
      const carrier = carrierOf(node)
      writeChanges(carrier, changesOf(carrier).filter((other) => other.page !== page.id))
      return again()
    },
    clear() {
      writeChanges(carrierOf(node), [])
      return again()
    },
    goOn: () => again(),
    redrawStale() {
      holdSeeds(node.weaverBook.book.seeds)
      return drawStale(node, carrierOf(node))
    },
  }
}

// ---- the node

function addBook(node) {
  node.weaverActions = actionsOf(node)
  node.weaverBook = new BookView(node.weaverActions)
  const widget = node.addDOMWidget("book", "weaver_story_view", node.weaverBook.root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => MIN_HEIGHT,
  })
  widget.serialize = false // the option keeps it out of the prompt, this one out of the saved workflow
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])
  previews.add(node)
}

function patch(nodeType, method, after) {
  const before = nodeType.prototype[method]
  nodeType.prototype[method] = function () {
    const result = before?.apply(this, arguments)
    after.apply(this, arguments)
    return result
  }
}

// ---- what ComfyUI says

/** The previews of this workflow that show what the node with this execution id makes. */
function previewsAfter(executionId) {
  return [...previews].filter((node) => node.graph && comesBefore(executionId, node))
}

function isOfThisWorkflow(id) {
  return !id || !rootGraph()?.id || id === rootGraph().id
}

function listen() {
  api.addEventListener("weaver.book", ({ detail }) => {
    if (!isOfThisWorkflow(detail.workflow)) return
    for (const node of previewsAfter(detail.node)) node.weaverBook.hear(detail)
  })
  api.addEventListener("b_preview_with_metadata", ({ detail }) => {
    for (const node of previewsAfter(detail.displayNodeId ?? detail.nodeId))
      node.weaverBook.hearPreview(detail.promptId ?? detail.jobId, detail.blob)
  })
  const stop = (sentence) => ({ detail }) => {
    for (const node of previews) node.weaverBook.stop(detail.prompt_id, sentence)
  }
  api.addEventListener("execution_interrupted", stop("Stopped. Finished pages are kept."))
  api.addEventListener("execution_error", stop("Not finished. Finished pages are kept."))
  api.addEventListener("execution_success", stop(""))
}

/** After a reload or a change of tabs: shows the story of this workflow's last run again, as long as ComfyUI knows it. */
async function showLastRun() {
  const waiting = () => [...previews].some((node) => node.graph && !node.weaverBook.book)
  if (!waiting()) return
  const answer = await api.fetchApi(`/history?max_items=${LAST_RUNS}`)
  if (!answer.ok) return
  for (const run of Object.values(await answer.json()).reverse()) {
    if (run.prompt?.[3]?.extra_pnginfo?.workflow?.id !== rootGraph()?.id) continue
    for (const [executionId, output] of Object.entries(run.outputs ?? {})) {
      const node = output.weaver_story && nodesAt(executionId).at(-1)
      if (node?.weaverBook && !node.weaverBook.book) node.weaverBook.show(output.weaver_story[0])
    }
    if (!waiting()) return
  }
}

app.registerExtension({
  name: "Weaver.StoryPreview",
  setup: listen,
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (CARRIERS.includes(nodeData.name)) {
      patch(nodeType, "onNodeCreated", function () {
        showOrHide(this)
      })
      patch(nodeType, "onConfigure", function () {
        showOrHide(this)
      })
    }
    if (nodeData.name !== NODE) return
    loadStyles()
    patch(nodeType, "onNodeCreated", function () {
      addBook(this)
    })
    patch(nodeType, "onAdded", function () {
      keepInSight(this, this.weaverBook.view, this.weaverBook.root)
    })
    patch(nodeType, "onRemoved", function () {
      previews.delete(this)
    })
    patch(nodeType, "onExecuted", function (message) {
      const story = message?.weaver_story?.[0]
      if (story && this.weaverBook) this.weaverBook.show(story)
    })
  },
  async afterConfigureGraph() {
    await showLastRun()
  },
})
