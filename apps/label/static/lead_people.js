// The People section: progress of each person, open invitations, and an admin's actions. Reviewers see only the list.

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
    const state = one.erased ? "erased" : one.active ? one.role : `${one.role}, deactivated`;
    const cells = [one.name, state, number(one.n_submitted), number(one.n_skipped), number(one.n_flagged),
      one.median_seconds ? `${Math.round(one.median_seconds)} s` : NOTHING, one.last_at ? when(one.last_at) : NOTHING, limits || NOTHING];
    if (this.lead.isAdmin) cells.splice(1, 0, button("Manage", () => manage(this.lead, one, (made) => this.show(made)), { "aria-label": `Manage ${one.name}` }));
    return cells;
  }

  #drawFailed(people) {
    const entry = ({ name }) => h("li", {}, h("span", { dir: "auto" }, name), " ",
      this.lead.isAdmin ? button("Let them practise again", () => this.lead.decide("practice", { name })) : null);
    this.failed.replaceChildren(...(people.length
      ? [h("div", { class: "banner" }, h("h2", {}, "Failed the practice tasks; they get no other tasks"), h("ul", { class: "entries" }, people.map(entry)))] : []));
  }

  #drawInvited(invited) {
    const row = ({ id, name, role, expires_at: until }) => {
      const cells = [name ?? `${id} (they choose a name)`, role, when(until)];
      const revoke = button("Revoke", () => this.lead.decide("end", { name: id }), { "aria-label": `Revoke the invitation of ${name ?? id}` });
      return this.lead.isAdmin ? cells.toSpliced(1, 0, revoke) : cells;
    };
    const columns = ["invited", ...(this.lead.isAdmin ? ["revoke"] : []), "role", "expires"];
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
      field("Names, one per line", names, "In a table with several columns, the first one counts. Leave empty to invite one person, who then chooses a name."),
      h("div", { class: "line" }, field("Role", role), field("Days until the link expires", days), h("button", { class: "primary" }, "Invite")));
  }

  /** Shows new links. This is the only time that they can be shown. */
  show({ invited }) {
    const line = ({ name, link }) => (name ? `${name}\t${link}` : link);
    const row = ({ name, role, link, expires_at: until }) => [name ?? `a new ${role}`, h("code", { class: "link" }, link), when(until), copier(link)];
    this.links.prepend(table({ title: "New links", columns: ["for", "link, works once", "expires", "copy"], rows: invited.map(row) }),
      h("p", { class: "hint" }, "The links are shown only now. Anyone who has a link can use it: send each one to its person only."),
      invited.length > 1 ? copier(invited.map(line).join("\n"), "Copy all") : "");
    this.links.scrollIntoView({ block: "nearest" });
  }
}
