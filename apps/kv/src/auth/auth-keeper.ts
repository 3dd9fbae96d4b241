import { readFileSync } from 'node:fs'
import { type AuthChange, authRefusals, type Demand, type Identity, type Refusal } from '@kiln/mvcc'
import type { Clock } from '@kiln/service'
import type { CallInfo } from '@kiln/wire'
import { fail, statuses } from '../api/errors.ts'
import type { Consensus } from '../consensus/types.ts'
import type { Settings } from '../settings/settings.ts'
import { encodeCommand } from '../state/command.ts'
import type { Applied, StoreState } from '../state/state-machine.ts'
import { createJwt, type Jwt } from './jwt.ts'
import { createPasswordPool, type PasswordPool } from './password-pool.ts'
import { drawPrefix, indexIn, SimpleTokens } from './simple-tokens.ts'

/** bcrypt looks at no more of a password. */
const passwordBytesMax = 72
/** Tries to authenticate while others change users and roles. */
const triesMax = 10
/** Compared with when there is no such user, so that it takes as long to be told. */
const nobodysHash = '$2b$10$CwTycUXWue0Thq9StjUM0uJ4PsbOBSlqWqUfAtcE6tPPVfDmSBzfi'

export type AuthKeeperOptions = {
  settings: Settings
  state: StoreState
  consensus: Consensus<Applied>
  clock: Clock
  /** Wall clock, which tokens with a signature tell their end in. */
  nowMs?: () => number
  passwords?: PasswordPool
}

/**
 * How much a refusal says: `latest` looks again once this member has all that was acknowledged, `confirmed` does so before the
 * first look, `local` is content with what this member knows.
 */
export type Certainty = 'local' | 'latest' | 'confirmed'

/** Who calls, and whether they may: the one place where every service asks. Also passwords and tokens. */
export class AuthKeeper {
  readonly #options: AuthKeeperOptions
  readonly #passwords: PasswordPool
  readonly #simple: SimpleTokens | undefined
  readonly #jwt: Jwt | undefined

  constructor(options: AuthKeeperOptions) {
    const { settings, clock } = options
    const { authToken } = settings
    this.#options = options
    this.#passwords = options.passwords ?? createPasswordPool({ cost: settings.bcryptCost })
    if (authToken.kind === 'simple') {
      this.#simple = new SimpleTokens({ ttlMs: authToken.ttlMs, now: clock.now })
    } else {
      this.#jwt = createJwt(authToken, { readFile: readFileSync, nowMs: options.nowMs ?? Date.now })
    }
  }

  /**
   * Lets a request through, or fails as etcd would. Answers who asks, for the entry that is to be proposed; nobody while
   * auth is off.
   */
  async admit(
    call: CallInfo,
    demand: Demand,
    certainty: Certainty = 'latest',
  ): Promise<Identity | undefined> {
    const { state, consensus } = this.#options
    if (!state.auth.enabled) return undefined
    if (certainty === 'confirmed') await consensus.readIndex()
    let outcome = this.#look(call, demand)
    // This member may be behind the one that gave the token, or that granted what is asked for.
    if (outcome.refusal && (outcome.isAhead || (outcome.who && certainty === 'latest'))) {
      await consensus.readIndex()
      outcome = this.#look(call, demand)
    }
    if (outcome.refusal) fail(outcome.refusal)
    return outcome.who
  }

  /** Why a call may not do something, by what this member knows. */
  refusalOf(call: CallInfo, demand: Demand): Refusal | undefined {
    return this.#look(call, demand).refusal
  }

  /** Who calls, if that can be told; for the audit. */
  callerOf(call: CallInfo): string {
    return this.#identify(call)?.name ?? 'anonymous'
  }

  async hash(password: string): Promise<string> {
    if (Buffer.byteLength(password) > passwordBytesMax) {
      fail({ code: 2, text: `bcrypt: password length exceeds ${passwordBytesMax} bytes` })
    }
    return this.#passwords.hash(password)
  }

  /** Exchanges a password for a token. */
  async authenticate(name: string, password: string): Promise<string> {
    const { state, consensus } = this.#options
    await consensus.readIndex()
    for (let tries = 0; tries < triesMax; tries++) {
      const { auth } = state
      if (!auth.enabled) fail(authRefusals.notEnabled)
      const user = auth.user(name)
      const { revision } = auth
      if (user?.noPassword) fail(statuses.noPasswordUser)
      const isRight = await this.#passwords.compare(password, user?.passwordHash ?? nobodysHash)
      if (!user || !isRight) fail(authRefusals.authFailed)
      const token = await this.#issue({ name, revision })
      if (token !== undefined) return token
    }
    return fail(authRefusals.oldRevision)
  }

  onTokenGiven(name: string, token: string): void {
    this.#simple?.give(name, token)
  }

  onAuthChanged(change: AuthChange): void {
    if (change.kind === 'disable') this.#simple?.clear()
    if (change.kind === 'user-delete' || change.kind === 'user-password')
      this.#simple?.forgetUser(change.name)
  }

  /** What happened to users in between is not known: everybody says again who they are. */
  onReplaced(): void {
    this.#simple?.clear()
  }

  async stop(): Promise<void> {
    await this.#passwords.stop()
  }

  /** Undefined when users or roles have changed since the password was looked up. */
  async #issue(who: Identity): Promise<string | undefined> {
    const { state, consensus } = this.#options
    if (this.#jwt) {
      if (state.auth.revision !== who.revision) return undefined
      return this.#jwt.issue(who) ?? fail(statuses.verifyOnly)
    }
    const { name, revision: authRevision } = who
    const entry = encodeCommand({ kind: 'authenticate', name, authRevision, prefix: drawPrefix() })
    const applied = await consensus.propose(entry)
    if (applied.kind !== 'authenticate')
      throw new Error(`assertion failed: authenticate gave ${applied.kind}`)
    if (applied.outcome.ok) return applied.outcome.value.token
    if (applied.outcome.refusal !== authRefusals.oldRevision) fail(applied.outcome.refusal)
    return undefined
  }

  #look(
    call: CallInfo,
    demand: Demand,
  ): { who: Identity | undefined; refusal: Refusal | undefined; isAhead: boolean } {
    const { auth, store } = this.#options.state
    const who = this.#identify(call)
    if (!who && call.token !== undefined && auth.enabled) {
      const isAhead = (indexIn(call.token) ?? 0) > this.#options.consensus.appliedIndex()
      return { who, refusal: authRefusals.invalidToken, isAhead }
    }
    const refusal =
      auth.enabled && who && who.revision < auth.revision
        ? authRefusals.oldRevision
        : auth.check(who, demand, (id) => store.leases.get(id)?.keys ?? [])
    return { who, refusal, isAhead: false }
  }

  #identify(call: CallInfo): Identity | undefined {
    const { state, settings } = this.#options
    const { revision } = state.auth
    if (call.token !== undefined) {
      if (this.#jwt) return this.#jwt.identify(call.token)
      const name = this.#simple?.nameOf(call.token)
      return name === undefined ? undefined : { name, revision }
    }
    // The JSON gateway, ours or one in between, has a certificate of its own, which says nothing about who asks.
    const isDirect =
      call.header('content-type')?.startsWith('application/grpc') === true &&
      call.header('grpcgateway-accept') === undefined
    const name = settings.clientTls?.clientAuth ? call.peer.commonName : undefined
    return name && isDirect ? { name, revision } : undefined
  }
}
