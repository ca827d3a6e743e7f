/** Handles signals as soon as it is imported. */
import { handleSignals } from './signals.ts'

handleSignals()
