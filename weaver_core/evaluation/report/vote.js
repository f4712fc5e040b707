// Votes are kept in the page and, where the browser allows it, in its local storage; nothing is ever sent.
const pairs = [...document.querySelectorAll("article[data-pair]")]
const buttons = [...document.querySelectorAll("button[data-choice]")]
const name = document.body.dataset.vote
const shelf = `weaver-vote-${name}`
const votes = {}
let place = 0

try {
  const kept = JSON.parse(localStorage.getItem(shelf) ?? "{}")
  for (const pair of pairs) {
    const choice = kept[pair.dataset.pair]
    if (["left", "right", "equal"].includes(choice)) votes[pair.dataset.pair] = choice
  }
} catch { /* no storage here: the votes live as long as the page */ }

function show(next) {
  place = Math.min(Math.max(next, 0), pairs.length - 1)
  pairs.forEach((pair, index) => { pair.hidden = index !== place })
  const choice = votes[pairs[place].dataset.pair]
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.choice === choice))
  document.getElementById("place").textContent = `${place + 1} of ${pairs.length}`
  document.getElementById("done").value = Object.keys(votes).length
}

function vote(choice) {
  votes[pairs[place].dataset.pair] = choice
  try { localStorage.setItem(shelf, JSON.stringify(votes)) } catch { /* as above */ }
  show(place)
  const open = pairs.findIndex((pair, index) => index > place && !(pair.dataset.pair in votes))
  const here = place
  if (open !== -1) setTimeout(() => { if (place === here) { show(open); scrollTo(0, 0) } }, 250)
}

function save() {
  const data = JSON.stringify({ format: "weaver-votes", version: 1, vote: name, votes }, null, 1)
  const link = document.createElement("a")
  link.href = URL.createObjectURL(new Blob([data], { type: "application/json" }))
  link.download = `votes-${name}.json`
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}

for (const button of buttons) button.addEventListener("click", () => vote(button.dataset.choice))
document.getElementById("back").addEventListener("click", () => show(place - 1))
document.getElementById("on").addEventListener("click", () => show(place + 1))
document.getElementById("save").addEventListener("click", save)
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return
  if (event.key === "ArrowLeft") show(place - 1)
  else if (event.key === "ArrowRight") show(place + 1)
  else if (event.key >= "1" && event.key <= "3") vote(["left", "equal", "right"][Number(event.key) - 1])
})
show(Math.max(0, pairs.findIndex((pair) => !(pair.dataset.pair in votes))))
