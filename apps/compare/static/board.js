// The leaderboard of all votes.

import { call } from "../api.js";
import { h, button } from "../dom.js";
import { number } from "./tokens.js";

const COLUMNS = ["Place", "Model", "Score", "95% interval", "Possible places", "Won", "Votes"];

export class Board {
  constructor(page) {
    this.page = page;
    this.content = h("div", {});
    const again = button("Refresh", () => this.open());
    this.element = h("div", {}, h("section", { class: "board", "aria-label": "Leaderboard" }, this.content, again));
  }

  async open() {
    try {
      this.#show(await call("GET", "leaderboard"));
    } catch (failure) {
      this.page.tell(failure);
    }
  }

  #show({ places, unranked, n_votes: votes, n_people: people, figure }) {
    const table = h("table", {}, h("thead", {}, h("tr", {}, COLUMNS.map((words) => h("th", { scope: "col" }, words)))),
      h("tbody", {}, places.map((one) => h("tr", {}, row(one).map((words, n) => h("td", n === 1 ? { dir: "auto" } : {}, words))))));
    this.content.replaceChildren(
      h("p", { class: "hint" }, `${votes} votes by ${people} ${people === 1 ? "person" : "people"}. Scores are Bradley-Terry, in nats above the mean; ties count as half wins.`),
      ...(places.length ? [h("div", { class: "wide" }, table)] : []),
      ...(figure ? [h("img", { src: figure, alt: "Model scores with intervals" })] : []),
      ...(unranked.length ? [h("h2", {}, "Not ranked"), h("ul", {}, unranked.map((one) => h("li", { dir: "auto" }, `${one.model}, ${one.n_votes} votes: ${one.reason}`)))] : []));
  }
}

function row({ place, model, score, place_low: low, place_high: high, share, n_votes: votes }) {
  const between = low < high ? `${low} to ${high}` : String(low);
  return [String(place), model, number(score.mean), `${number(score.low)} to ${number(score.high)}`, between, `${Math.round(100 * share)}%`, String(votes)];
}
