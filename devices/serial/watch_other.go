//go:build !linux

package serial

// watcher is nothing where there is no inotify: the backoff alone finds the
// device again.
type watcher struct{}

func watch(string) *watcher               { return nil }
func (w *watcher) hints() <-chan struct{} { return nil }
func (w *watcher) close()                 {}
