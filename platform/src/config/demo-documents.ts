/** Documents of the demo tenants: the same questions have different answers in each, so a leak would be visible at once. */
interface DemoDocument {
  readonly filename: string;
  readonly text: string;
}

export const demoDocuments: Readonly<Record<string, readonly DemoDocument[]>> = {
  acme: [
    {
      filename: 'refund-policy.md',
      text: '# Refund policy\n\nThe refund period at Acme Corporation is 45 days from delivery. Anvils are refunded in full; rocket skates are refunded less a 15 percent restocking fee.\n\nRefunds are paid to the card that was charged, within three working days after the goods arrive in Phoenix.\n',
    },
    {
      filename: 'on-call.md',
      text: '# On call\n\nThe on-call engineer at Acme carries the pager from Tuesday 10:00 to the next Tuesday. Escalate after 15 minutes to Wanda Coyote, the incident manager.\n\nThe production region is Arizona West; the fail-over region is Nevada.\n',
    },
  ],
  globex: [
    {
      filename: 'refund-policy.md',
      text: '# Refund policy\n\nThe refund period at Globex is 14 days from the date of the invoice. Turbine parts are not refunded once mounted.\n\nRefunds are credited to the customer account and paid out at the end of the quarter from Cypress Creek.\n',
    },
    {
      filename: 'on-call.md',
      text: '# On call\n\nGlobex staffs a follow-the-sun rota with hand-over at 08:00 and 20:00 UTC. Escalate after 30 minutes to Hank Scorpio.\n\nThe production region is Oregon; there is no fail-over region, recovery is from backups within four hours.\n',
    },
  ],
  initech: [
    {
      filename: 'refund-policy.md',
      text: '# Refund policy\n\nThe refund period at Initech is 7 days, and every refund needs a TPS report with the new cover sheet.\n\nRefunds are paid by cheque from Austin.\n',
    },
    {
      filename: 'on-call.md',
      text: '# On call\n\nAt Initech nobody is on call at night. On Saturdays Peter may be asked to come in; escalate to Bill Lumbergh by memo.\n\nThe production server stands in the basement next to the stapler archive.\n',
    },
  ],
};
