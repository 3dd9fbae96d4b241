/** The one import of the X.509 library: it wants its metadata polyfill before it. */
import 'reflect-metadata'

export * from '@peculiar/x509'
