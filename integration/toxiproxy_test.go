package integration

import (
	_ "github.com/Shopify/toxiproxy/v2"
	_ "github.com/managedpg/managedpg"
	_ "github.com/rs/zerolog"
	_ "go.uber.org/goleak"
)
