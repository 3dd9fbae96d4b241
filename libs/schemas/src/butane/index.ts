export { machineConfigTypes } from './config-types.ts'
export type { DirectoryRead, FileEntry, FileRead, FilesPort } from './files.ts'
export { describeButaneProblem, excerptButaneProblem } from './report.ts'
export type { Place, SourceEntry, SourceNode } from './source.ts'
export { versionsOf } from './specs.ts'
export {
  type ButaneOptions,
  type ButaneProblem,
  type ButaneResult,
  type Documents,
  translateButane,
  translateTree,
} from './translate.ts'
