package driver

import "context"

type inOrder int

func (n inOrder) Connect(ctx context.Context, open func(context.Context, int) error) (err error) {
	for i := range int(n) {
		if err = open(ctx, i); err == nil {
			return nil
		}
	}
	return err
}
func (inOrder) Epoch(int) uint64      { return 0 }
func (inOrder) CallFailed(int, error) {}
