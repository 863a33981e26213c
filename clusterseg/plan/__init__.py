"""Pure planning: JobSpec + site + launcher definition + hosts -> Plan. No I/O, no clock."""
