/** What a finished config and a pod in it are checked with: loaded when there is one, and without the schemas of the rest of Kiln. */
export { parseIgnition, parsePod } from '@kiln/schemas'
