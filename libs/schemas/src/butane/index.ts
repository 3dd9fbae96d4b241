export type { DirectoryRead, FileEntry, FileRead, FilesPort } from './files.ts'
export { describeButaneProblem, excerptButaneProblem } from './report.ts'
export { versionsOf } from './specs.ts'
export { type ButaneOptions, type ButaneProblem, type ButaneResult, translateButane } from './translate.ts'
