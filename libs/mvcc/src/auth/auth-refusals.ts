import { refusal } from '../errors.ts'

/** What etcd's auth service refuses with (kv.md section 9). */
export const authRefusals = {
  userEmpty: refusal(3, 'user name is empty'),
  roleEmpty: refusal(3, 'role name is empty'),
  authFailed: refusal(3, 'authentication failed, invalid user ID or password'),
  permissionNotGiven: refusal(3, 'permission not given'),
  invalidManagement: refusal(3, 'invalid auth management'),
  oldRevision: refusal(3, 'revision of auth store is old'),
  permissionDenied: refusal(7, 'permission denied'),
  rootUserMissing: refusal(9, 'root user does not exist'),
  rootRoleMissing: refusal(9, 'root user does not have root role'),
  userExists: refusal(9, 'user name already exists'),
  userNotFound: refusal(9, 'user name not found'),
  roleExists: refusal(9, 'role name already exists'),
  roleNotFound: refusal(9, 'role name not found'),
  roleNotGranted: refusal(9, 'role is not granted to the user'),
  permissionNotGranted: refusal(9, 'permission is not granted to the role'),
  notEnabled: refusal(9, 'authentication is not enabled'),
  invalidToken: refusal(16, 'invalid auth token'),
} as const
