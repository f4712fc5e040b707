// Preview Story: the picture book inside the node. Model and user text goes in as textContent only.
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"
import { element, letScroll, loadStyles } from "./dom.js"

const NODE = "WeaverPreviewStory"
const SIZE = [620, 680]
const MIN_HEIGHT = 260

function pictureOf(picture, prompt) {
  if (!picture) return element("div", { className: "weaver-picture weaver-empty", textContent: "no picture" })
  const query = new URLSearchParams({ filename: picture.filename, subfolder: picture.subfolder, type: picture.type })
  const [width, height] = picture.size
  const image = element("img", { alt: prompt ?? "", title: prompt ?? "", draggable: false, decoding: "async" })
  image.src = api.apiURL(`/view?${query}`)
  image.width = width
  image.height = height
  if (Math.max(width, height) <= 256) image.classList.add("weaver-small")
  return element("div", { className: "weaver-picture" }, image)
}

function pageOf(page, number) {
  const texts = page.texts.map((text) => element("p", { textContent: text }))
  const words = element("div", { className: "weaver-words" }, ...texts)
  words.append(element("span", { className: "weaver-number", textContent: String(number) }))
  if (!page.prompt) return element("article", { className: "weaver-page weaver-words-only" }, words)
  return element("article", { className: "weaver-page" }, pictureOf(page.picture, page.prompt), words)
}

function show(view, story) {
  const title = element("h2", { textContent: story.title || "Untitled" })
  view.lang = story.language
  view.replaceChildren(title, ...story.pages.map((page, index) => pageOf(page, index + 1)))
  view.scrollTop = 0
}

function invite(view) {
  view.replaceChildren(element("div", { className: "weaver-invitation", textContent: "The story appears here when it has been drawn." }))
}

app.registerExtension({
  name: "Weaver.StoryPreview",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return
    loadStyles()

    const onNodeCreated = nodeType.prototype.onNodeCreated
    nodeType.prototype.onNodeCreated = function () {
      onNodeCreated?.apply(this, arguments)
      const view = element("div", { className: "weaver-book", tabIndex: 0 })
      letScroll(view)
      invite(view)
      const widget = this.addDOMWidget("book", "weaver_story_view", element("div", { className: "weaver-frame" }, view), {
        serialize: false,
        hideOnZoom: false,
        getMinHeight: () => MIN_HEIGHT,
      })
      widget.serialize = false // the option keeps it out of the prompt, this one out of the saved workflow
      this.weaverBook = view
      this.setSize([Math.max(this.size[0], SIZE[0]), Math.max(this.size[1], SIZE[1])])
    }

    const onExecuted = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (message) {
      onExecuted?.apply(this, arguments)
      const story = message?.weaver_story?.[0]
      if (story && this.weaverBook) show(this.weaverBook, story)
    }
  },
})
