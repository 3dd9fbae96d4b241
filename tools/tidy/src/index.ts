export { readPackages, readSources } from './packages.ts'
export { checkBudgets, checkLayers, checkProcess, checkPurity, checkReferences, checkShape } from './rules.ts'
