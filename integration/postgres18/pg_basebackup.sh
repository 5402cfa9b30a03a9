#!/bin/sh
# pg_basebackup for a PostgreSQL that comes without it, on this machine: what internal/pgtest asks of it, done with psql.
set -eu
while [ $# -gt 0 ]; do
	case $1 in
	-D) to=$2 && shift ;;
	-S) slot=$2 && shift ;;
	-d) conninfo=$2 && shift ;;
	esac
	shift
done
db="$conninfo dbname=postgres"
from=$(psql -XAtq -d "$db" -c 'SHOW data_directory')
psql -XAtq -v ON_ERROR_STOP=1 -d "$db" <<END
SELECT pg_create_physical_replication_slot('$slot', true) \g /dev/null
SELECT pg_backup_start('copy', true) \g /dev/null
\! cp -R '$from' '$to' && chmod 700 '$to'
SELECT labelfile FROM pg_backup_stop(false) \g $to/backup_label
END
rm -rf "$to/postmaster.pid" "$to/postmaster.opts" "$to"/pg_replslot/*
touch "$to/standby.signal"
printf "primary_conninfo = '%s'\nprimary_slot_name = '%s'\n" "$conninfo" "$slot" >>"$to/postgresql.auto.conf"
