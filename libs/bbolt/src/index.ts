export { type Database, type DatabaseBucket, openDatabase, type RandomAccess } from './reader.ts'
export {
  type BucketEntry,
  type BucketSource,
  type DatabasePlan,
  planDatabase,
  writeDatabase,
} from './writer.ts'
