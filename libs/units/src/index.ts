export {
  type InstallSection,
  installSection,
  type ParsedUnit,
  parseUnit,
  type UnitEntry,
} from './unit-file.ts'
export { expandInstallName, parseUnitName, templateOf, type UnitName, unitExtensions } from './unit-name.ts'
export {
  describeUnitAction,
  type InstalledUnits,
  planUnits,
  presetPath,
  type UnitAction,
  type UnitPlan,
  type UnitSpec,
} from './unit-plan.ts'
