package paycode

import (
	"bufio"
	"encoding/json"
	"errors"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sample is one picture whose text is known.
type sample struct {
	file, text, symbology string
	img                   image.Image
}

// loadPictures reads the shared pictures, or skips the test where they are not at hand. YUPOS_PICTURES names their folder.
func loadPictures(t testing.TB) []sample {
	t.Helper()
	dir := os.Getenv("YUPOS_PICTURES")
	if dir == "" {
		dir = "../../../shared/vectors/pictures"
	}
	manifest, err := os.Open(filepath.Join(dir, "manifest.tsv"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the shared pictures are not at hand: set YUPOS_PICTURES to their folder")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer manifest.Close()
	var samples []sample
	lines := bufio.NewScanner(manifest)
	for lines.Scan() {
		cells := strings.Split(lines.Text(), "\t")
		if len(cells) < 3 || cells[0] == "file" {
			continue
		}
		s := sample{file: cells[0], symbology: cells[2]}
		if err := json.Unmarshal([]byte(cells[1]), &s.text); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(dir, s.file))
		if err != nil {
			t.Fatal(err)
		}
		s.img, _, err = image.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, s)
	}
	return samples
}

func plainText(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")) }

func TestReadRateOfTheSharedPictures(t *testing.T) {
	samples := loadPictures(t)
	turns := 1
	if os.Getenv("YUPOS_PICTURES_TURNED") != "" {
		turns = 4
	}
	right, wrong, total := 0, 0, 0
	var longest, all time.Duration
	for _, s := range samples {
		g := toGrey(s.img)
		for turn := range turns {
			start := time.Now()
			text, symbology, rungName, _ := climbNamed(g, time.Minute)
			took := time.Since(start)
			all, longest, total = all+took, max(longest, took), total+1
			switch {
			case text == "":
				t.Logf("not read: %s turned %d, %v", s.file, 90*turn, took.Round(time.Millisecond))
			case plainText(text) != plainText(s.text) || symbology != s.symbology:
				wrong++
				t.Logf("another text: %s turned %d by %s: %q", s.file, 90*turn, rungName, text)
			default:
				right++
				if testing.Verbose() {
					t.Logf("%s turned %d: %s, %v", s.file, 90*turn, rungName, took.Round(100*time.Microsecond))
				}
			}
			turnedSource, _ := g.RotateCounterClockwise()
			g = turnedSource.(*grey)
		}
	}
	t.Logf("%d of %d right, %d other texts, mean %v, longest %v", right, total, wrong, all/time.Duration(total), longest)
	if wrong > 0 || right*100 < total*97 {
		t.Errorf("%d of %d right, %d other texts", right, total, wrong)
	}
}

// climbNamed is climb with the name of the attempt that succeeded.
func climbNamed(g *grey, limit time.Duration) (text, symbology, name string, err error) {
	s := newScene(g)
	deadline := time.Now().Add(limit)
	for _, r := range ladder {
		if text, symbology, ok := r.try(s); ok {
			return text, symbology, r.name, nil
		}
		if time.Now().After(deadline) {
			break
		}
	}
	return "", "", "", ErrNothingRead
}
