import { registerHooks } from 'node:module'
import { mutate, mutations } from './mutations.ts'

/**
 * Loads the sources with a bug in one of them: `node --import ./mutate.ts?name=NAME main.ts`. Nothing of it is in the programs
 * themselves.
 */
const name = new URL(import.meta.url).searchParams.get('name')
const mutation = mutations.find((one) => one.name === name)
if (mutation === undefined) throw new Error(`there is no mutation ${name}`)
const target = new URL(`../../../../${mutation.file}`, import.meta.url).href

registerHooks({
  load: (url, context, nextLoad) => {
    const loaded = nextLoad(url, context)
    if (url !== target || loaded.source == null) return loaded
    const text = typeof loaded.source === 'string' ? loaded.source : new TextDecoder().decode(loaded.source)
    return { ...loaded, source: mutate(mutation, text) }
  },
})
