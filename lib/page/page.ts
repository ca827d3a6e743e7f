import { createHash } from 'node:crypto'
import { type Html, html, markup } from './html.ts'
import { STYLE } from './style.ts'

/** What a page is made of. */
export interface PageParts {
  title: string
  /** Besides the common rules. */
  style?: string
  script?: string
  body: Html
}

/**
 * A page that needs nothing else. It tells browsers to load nothing, and to run no script and apply no rule but its
 * own: whatever a name in it may hold stays text.
 */
export function renderPage({ title, style = '', script, body }: PageParts): string {
  const rules = STYLE + style
  const policy = [
    "default-src 'none'",
    `style-src '${hashOf(rules)}'`,
    ...(script === undefined ? [] : [`script-src '${hashOf(script)}'`]),
    "base-uri 'none'",
    "form-action 'none'",
  ]
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${markup(policy.join('; '))}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${markup(rules)}</style>
</head>
<body>
${body}
${script !== undefined && html`<script>${markup(script)}</script>`}
</body>
</html>
`.text
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`
}
