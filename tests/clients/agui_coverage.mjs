// Reads events, one a line, and writes a line for each field, member and word of the official schemas that none of them has.

import { readFileSync } from "node:fs";
import { EventSchemas } from "@ag-ui/core/schemas";

const events = readFileSync(process.argv[2], "utf8").split("\n").filter((line) => line !== "");
let seen = 0;

function cover(schema, values, path) {
  const { type, ...def } = schema._zod.def;
  const miss = (what) => process.stdout.write(`missing ${path}${what}\n`);
  seen += 1;
  switch (type) {
    case "object":
      for (const [name, field] of Object.entries(def.shape)) {
        const found = values.filter((value) => Object.hasOwn(value, name)).map((value) => value[name]);
        const optional = field._zod.optin === "optional";
        if (found.length === 0) {
          miss(`.${name}`);
        } else if (optional && found.length === values.length) {
          miss(`.${name} absent`);
        }
        cover(field, found, `${path}.${name}`);
      }
      return;
    case "union":
      for (const option of def.options) {
        const found = values.filter((value) => option.safeParse(value).success);
        if (found.length === 0) {
          miss(` as ${option._zod.def.shape?.[def.discriminator]?._zod.def.values ?? option._zod.def.type}`);
        }
        cover(option, found, path);
      }
      return;
    case "array":
      return cover(def.element, values.flat(), `${path}[]`);
    case "enum":
      return Object.values(def.entries).filter((word) => !values.includes(word)).forEach((word) => miss(` = ${word}`));
    case "optional":
    case "nullable":
    case "default":
      return cover(def.innerType, values, path);
    case "pipe":
      return cover(def.in, values, path);
    case "string":
    case "number":
    case "boolean":
    case "any":
    case "literal":
    case "custom":
    case "transform":
      return;
    default:
      throw new Error(`a ${type} at ${path}: teach me what that is`);
  }
}

cover(EventSchemas, events.map((event) => JSON.parse(event)), "event");
process.stdout.write(`looked at ${seen}\n`);
