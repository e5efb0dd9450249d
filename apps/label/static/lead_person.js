// What an admin does about one person, in a dialog.

import { h, button } from "../dom.js";
import { choice, confirmed, field, open } from "./lead_parts.js";
import { ROLES } from "./lead_people.js";

/** `show` is called with a new link for them. */
export function manage(lead, person, show) {
  const { name } = person;
  const done = async (path, body = {}) => {
    dialog.close();
    return lead.decide(path, { name, ...body });
  };
  const reset = async () => {
    dialog.close();
    const made = await lead.ask("POST", "reset", { name });
    if (made) show(made);
  };
  const sure = async (question, path, body) => {
    dialog.close(); // first, so that the focus goes back to where it was, and from the question there too
    if (await question()) await lead.decide(path, { name, ...body });
  };
  const shutOut = () => sure(() => confirmed(lead, `Shut ${name} out?`, "They are logged out at once and cannot log in until you let them in again. What they said stays.", "Shut out"), "active", { active: false });
  const erase = () => sure(() => confirmed(lead, `Erase ${name}?`,
    "Their name, comments and whatever else they wrote are taken out of the database for good, and they cannot log in any more. Their rankings stay, under another name. Nobody can bring this back.",
    "Erase for good", name), "erase");
  const role = choice(ROLES, { "aria-label": "Role" });
  role.value = person.role;
  const most = h("input", { type: "number", min: "0", step: "1", value: person.most ?? "", placeholder: "no limit" });
  const dialog = open(lead, name, h("div", { class: "parts" },
    h("form", { class: "line", onsubmit: (event) => (event.preventDefault(), done("role", { role: role.value })) }, field("Role", role), h("button", {}, "Give the role")),
    h("form", { class: "line", onsubmit: (event) => (event.preventDefault(), done("limit", { most: most.value === "" ? null : Number(most.value) })) },
      field("Most rankings; empty: as the project says", most), h("button", {}, "Set the limit")),
    h("div", { class: "buttons" },
      button(person.paused ? "Give tasks again" : "Pause", () => done("pause_person", { paused: !person.paused })),
      button("Practice tasks again", () => done("practice")),
      button("Link for a new password", reset),
      button("End sessions and open links", () => done("end"))),
    h("div", { class: "buttons" },
      person.active ? button("Shut out", shutOut, { class: "danger" }) : button("Let in again", () => done("active", { active: true })),
      button("Erase", erase, { class: "danger" }))));
}
