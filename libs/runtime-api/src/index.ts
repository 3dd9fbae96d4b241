export { operatorPort, RuntimeClient, runtimeService } from './runtime-client.ts'
