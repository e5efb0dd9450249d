// Who there is: what they have done, who was invited, and what an admin does about them. Reviewers see the list alone.

import { h, button } from "../dom.js";
import { choice, copier, field, table, when } from "./lead_parts.js";
import { manage } from "./lead_person.js";
import { Tokens } from "./lead_tokens.js";

export const ROLES = [["annotator", "annotator"], ["reviewer", "reviewer"], ["admin", "admin"]];
const NOTHING = "–";

export class People {
  constructor(lead, name, title) {
    this.lead = lead;
    this.failed = h("div", {});
    this.list = h("div", {});
    this.invited = h("div", {});
    this.element = h("section", { class: "parts", "aria-label": title }, this.failed, this.list, this.invited);
    if (!lead.isAdmin) return;
    this.links = h("div", { role: "status" });
    this.tokens = new Tokens(lead);
    this.element.append(this.#inviting(), this.links, this.tokens.element);
  }

  async open() {
    const found = await this.lead.ask("GET", "people");
    if (!found) return;
    const { isAdmin } = this.lead;
    const columns = ["person", ...(isAdmin ? ["manage"] : []), "role", "ranked", "skipped", "reported", "median", "last", "limits"];
    this.list.replaceChildren(table({ title: "People", columns, rows: found.people.map((one) => this.#row(one)) }));
    this.#drawFailed(found.people.filter((one) => one.failed_practice));
    this.#drawInvited(found.invited);
    if (isAdmin) await this.tokens.open(found.people);
  }

  #row(one) {
    const number = (value) => (value === undefined ? NOTHING : String(value));
    const limits = [one.paused ? "paused" : null, one.most === null ? null : `at most ${one.most}`].filter(Boolean).join(", ");
    const state = one.erased ? "erased" : one.active ? one.role : `${one.role}, shut out`;
    const cells = [one.name, state, number(one.n_submitted), number(one.n_skipped), number(one.n_flagged),
      one.median_seconds ? `${Math.round(one.median_seconds)} s` : NOTHING, one.last_at ? when(one.last_at) : NOTHING, limits || NOTHING];
    if (this.lead.isAdmin) cells.splice(1, 0, button("Manage", () => manage(this.lead, one, (made) => this.show(made)), { "aria-label": `Manage ${one.name}` }));
    return cells;
  }

  #drawFailed(people) {
    const entry = ({ name }) => h("li", {}, h("span", { dir: "auto" }, name), " ",
      this.lead.isAdmin ? button("Let them practise again", () => this.lead.decide("practice", { name })) : null);
    this.failed.replaceChildren(...(people.length
      ? [h("div", { class: "banner" }, h("h2", {}, "Did not pass the practice tasks, and get no others"), h("ul", { class: "entries" }, people.map(entry)))] : []));
  }

  #drawInvited(invited) {
    const row = ({ id, name, role, expires_at: until }) => {
      const cells = [name ?? `${id} (they choose)`, role, when(until)];
      const revoke = button("Revoke", () => this.lead.decide("end", { name: id }), { "aria-label": `Revoke the invitation of ${name ?? id}` });
      return this.lead.isAdmin ? cells.toSpliced(1, 0, revoke) : cells;
    };
    const columns = ["invited", ...(this.lead.isAdmin ? ["revoke"] : []), "role", "until"];
    this.invited.replaceChildren(invited.length ? table({ title: "Open invitations", columns, rows: invited.map(row) }) : "");
  }

  #inviting() {
    const names = h("textarea", { rows: "3", dir: "auto", spellcheck: "false" });
    const [role, days] = [choice(ROLES), h("input", { type: "number", min: "0.01", max: "30", step: "any", value: "7", required: true })];
    const invite = async () => {
      const lines = names.value.split("\n").map((line) => line.trim()).filter(Boolean);
      const about = { role: role.value, days: Number(days.value) };
      const made = lines.length ? await this.lead.ask("POST", "invite_many", { ...about, names: lines.join("\n") }) : await this.lead.ask("POST", "invite", about);
      if (!made) return;
      names.value = "";
      this.show(made);
      await this.lead.refresh();
    };
    return h("form", { class: "box", onsubmit: (event) => (event.preventDefault(), this.lead.once("invite", invite)) }, h("h2", {}, "Invite"),
      field("Names, one a line", names, "Of a list with more columns the first counts. Without a name, one person chooses their own."),
      h("div", { class: "line" }, field("Role", role), field("Days that the link works", days), h("button", { class: "primary" }, "Invite")));
  }

  /** New links, which are told this once. */
  show({ invited }) {
    const line = ({ name, link }) => (name ? `${name}\t${link}` : link);
    const row = ({ name, role, link, expires_at: until }) => [name ?? `a new ${role}`, h("code", { class: "link" }, link), when(until), copier(link)];
    this.links.prepend(table({ title: "New links", columns: ["for", "link, works once", "until", "copy"], rows: invited.map(row) }),
      h("p", { class: "hint" }, "They are shown this once. Whoever has a link can use it: send each to its person alone."),
      invited.length > 1 ? copier(invited.map(line).join("\n"), "Copy all") : "");
    this.links.scrollIntoView({ block: "nearest" });
  }
}
