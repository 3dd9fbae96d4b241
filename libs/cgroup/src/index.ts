export { type CgroupWrite, cpuWeight, type Limits, limitWrites } from './limits.ts'
export {
  applyLimits,
  createCgroup,
  enableControllers,
  isUnified,
  killCgroup,
  readOomKills,
  readProcesses,
  readStatistics,
  removeCgroup,
  type Statistics,
} from './tree.ts'
