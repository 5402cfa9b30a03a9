package managedpg
