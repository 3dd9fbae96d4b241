import { describeError, Fault } from '@kiln/service'
import { planContainer } from './container-plan.ts'
import { planExec, planUpdate } from './exec-plan.ts'
import { decodeRequest } from './request.ts'

/** The answer to the front's question: `P` and a plan, or `E` and a sentence. Never throws on what a document says. */
export function answerFront(question: Buffer): Buffer {
  try {
    const request = decodeRequest(question)
    switch (request.command) {
      case 'create':
      case 'run':
        return Buffer.concat([Buffer.from('P'), planContainer(request)])
      case 'exec':
        return Buffer.concat([Buffer.from('P'), planExec(request)])
      case 'update':
        return Buffer.concat([Buffer.from('P'), planUpdate(request)])
      default:
        throw new Fault('USAGE', `nothing to plan for ${JSON.stringify(request.command)}`)
    }
  } catch (error) {
    const text = error instanceof Fault ? error.message : describeError(error)
    return Buffer.from(`E${text.slice(0, 4000)}`)
  }
}
