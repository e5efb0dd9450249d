// The dialog in which an admin manages one person.

import { h, button } from "../dom.js";
import { choice, confirmed, field, open } from "./lead_parts.js";
import { ROLES } from "./lead_people.js";

/** Opens the dialog. `show` is called with a new link for the person. */
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
    dialog.close(); // first, so that the focus returns to the list, also from the question
    if (await question()) await lead.decide(path, { name, ...body });
  };
  const deactivate = () => sure(() => confirmed(lead, `Deactivate ${name}?`, "They are logged out at once and cannot log in until you activate them again. Their rankings stay.", "Deactivate"), "active", { active: false });
  const erase = () => sure(() => confirmed(lead, `Erase ${name}?`,
    "This removes their name, comments and all other texts from the database, and they cannot log in any more. Their rankings stay under a pseudonym. This cannot be undone.",
    "Erase for good", name), "erase");
  const role = choice(ROLES, { "aria-label": "Role" });
  role.value = person.role;
  const most = h("input", { type: "number", min: "0", step: "1", value: person.most ?? "", placeholder: "no limit" });
  const dialog = open(lead, name, h("div", { class: "parts" },
    h("form", { class: "line", onsubmit: (event) => (event.preventDefault(), done("role", { role: role.value })) }, field("Role", role), h("button", {}, "Set the role")),
    h("form", { class: "line", onsubmit: (event) => (event.preventDefault(), done("limit", { most: most.value === "" ? null : Number(most.value) })) },
      field("Most rankings (empty: the project's limit)", most), h("button", {}, "Set the limit")),
    h("div", { class: "buttons" },
      button(person.paused ? "Resume" : "Pause", () => done("pause_person", { paused: !person.paused })),
      button("Repeat practice tasks", () => done("practice")),
      button("Password reset link", reset),
      button("Log out and revoke links", () => done("end"))),
    h("div", { class: "buttons" },
      person.active ? button("Deactivate", deactivate, { class: "danger" }) : button("Activate", () => done("active", { active: true })),
      button("Erase", erase, { class: "danger" }))));
}
