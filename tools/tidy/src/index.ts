export { readPackages, readSources } from './packages.ts'
export {
  checkBudgets,
  checkErrorCodes,
  checkLayers,
  checkProcess,
  checkPurity,
  checkReferences,
  checkShape,
} from './rules.ts'
