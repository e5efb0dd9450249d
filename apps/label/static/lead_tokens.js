// API tokens for scripts: create, list, revoke.

import { h, button } from "../dom.js";
import { choice, copier, field, table, when } from "./lead_parts.js";

export class Tokens {
  constructor(lead) {
    this.lead = lead;
    this.person = choice([]);
    this.purpose = h("input", { required: true, maxlength: "200", dir: "auto" });
    this.days = h("input", { type: "number", min: "0.01", max: "365", step: "any", value: "90", required: true });
    this.made = h("div", { role: "status" });
    this.list = h("div", {});
    const form = h("form", { onsubmit: (event) => (event.preventDefault(), lead.once("token", () => this.#make())) },
      h("div", { class: "line" }, field("Acts as", this.person), field("Purpose", this.purpose), field("Days", this.days), h("button", { class: "primary" }, "Make a token")));
    this.element = h("div", { class: "box" }, h("h2", {}, "Tokens for scripts"), form, this.made, this.list);
  }

  async open(people) {
    const [names, chosen] = [people.filter((one) => one.active).map(({ name }) => name), this.person.value];
    this.person.replaceChildren(...choice(names.map((name) => [name, name])).childNodes);
    this.person.value = names.includes(chosen) ? chosen : this.lead.data.asks.name;
    const found = await this.lead.ask("GET", "tokens");
    if (!found) return;
    const row = ({ id, person, purpose, expires_at: until, used_at: used }) => [purpose, person, when(until), used ? when(used) : "never",
      button("Revoke", () => this.lead.decide("revoke_token", { id }), { "aria-label": `Revoke ${purpose}` })];
    this.list.replaceChildren(found.tokens.length ? table({ title: "Tokens", columns: ["purpose", "acts as", "expires", "last used", "revoke"], rows: found.tokens.map(row) }, { unseen: true }) : "");
  }

  async #make() {
    const made = await this.lead.ask("POST", "tokens", { name: this.person.value, purpose: this.purpose.value, days: Number(this.days.value) });
    if (!made) return;
    this.purpose.value = "";
    this.made.replaceChildren(h("p", {}, h("code", { class: "link" }, made.token)), copier(made.token),
      h("p", { class: "hint" }, `The token is shown only now. It works until ${when(made.expires_at)}.`));
    await this.lead.refresh();
  }
}
