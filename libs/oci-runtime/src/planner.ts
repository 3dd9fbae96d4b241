import { describeError, Fault } from '@kiln/service'
import { planContainer } from './container-plan.ts'
import { planExec, planUpdate } from './exec-plan.ts'
import { decodeRequest, type FrontRequest } from './request.ts'

/** A plan, and what the caller should know about the document that is no mistake. */
export type Planned = { plan: Buffer; warnings: string[] }

/** The answer to the front's question: `W` lines, then `P` and a plan, or `E` and a sentence. Never throws on what a document says. */
export function answerFront(question: Buffer): Buffer {
  try {
    const { plan, warnings } = answer(decodeRequest(question))
    const lines = warnings.slice(0, 20).map((text) => `W${text.slice(0, 1000).replaceAll('\n', ' ')}\n`)
    return Buffer.concat([Buffer.from(`${lines.join('')}P`), plan])
  } catch (error) {
    const text = error instanceof Fault ? error.message : describeError(error)
    return Buffer.from(`E${text.slice(0, 4000)}`)
  }
}

function answer(request: FrontRequest): Planned {
  switch (request.command) {
    case 'create':
    case 'run':
      return planContainer(request)
    case 'exec':
      return planExec(request)
    case 'update':
      return { plan: planUpdate(request), warnings: [] }
    default:
      throw new Fault('USAGE', `nothing to plan for ${JSON.stringify(request.command)}`)
  }
}
