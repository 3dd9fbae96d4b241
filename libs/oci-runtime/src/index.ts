export type { ExecBase } from './container-plan.ts'
export { defaultSpec } from './default-spec.ts'
export { features } from './features.ts'
export { answerFront } from './planner.ts'
