package paycode

import (
	"math"
	"slices"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode/detector"
)

const (
	// centresLimit bounds what looks like a finder pattern in one picture. The library compares all triples of them, so a
	// picture full of squares in squares would keep it busy for minutes.
	centresLimit = 150
	// centresRanked is how many of them, the surest first, are compared once more here.
	centresRanked = 32
	// triplesTried is how many other triples are tried behind the library's own choice.
	triplesTried = 2
)

// everyRow makes the library look at every third row whatever the height. By itself it skips more in a tall picture, and a
// small code in a photograph falls between the rows.
var everyRow = map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true}

// tooManyCentres stops the library's search from within; it never leaves this file.
type tooManyCentres struct{}

// findFinders returns the likeliest triples of finder patterns in a binary picture: the library's choice, then those whose
// centres form the best right-angled isosceles triangles for their size.
func findFinders(m *gozxing.BitMatrix) []*detector.FinderPatternInfo {
	chosen, centres := searchCentres(m)
	var found []*detector.FinderPatternInfo
	if chosen != nil {
		found = append(found, chosen)
	}
	if len(centres) == 3 && chosen != nil {
		return found
	}
	for _, t := range rankTriples(centres) {
		bottomLeft, topLeft, topRight := gozxing.ResultPoint_OrderBestPatterns(t[0], t[1], t[2])
		info := detector.NewFinderPatternInfo(bottomLeft.(*detector.FinderPattern), topLeft.(*detector.FinderPattern), topRight.(*detector.FinderPattern))
		if chosen == nil || !sameFinders(info, chosen) {
			found = append(found, info)
		}
	}
	return found
}

// searchCentres runs the library's search; where it is stopped, chosen is nil and the centres are those found until then.
func searchCentres(m *gozxing.BitMatrix) (chosen *detector.FinderPatternInfo, centres []*detector.FinderPattern) {
	count := 0
	f := detector.NewFinderPatternFinder(m, func(gozxing.ResultPoint) {
		if count++; count > centresLimit {
			panic(tooManyCentres{})
		}
	})
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(tooManyCentres); !ours {
				panic(r)
			}
			chosen, centres = nil, f.GetPossibleCenters()
		}
	}()
	info, err := f.Find(everyRow)
	if err != nil {
		return nil, f.GetPossibleCenters()
	}
	return info, f.GetPossibleCenters()
}

// rankTriples returns the triples of centres of similar size that are nearest to half a square, the nearest first.
func rankTriples(centres []*detector.FinderPattern) [][3]*detector.FinderPattern {
	sure := slices.Clone(centres)
	slices.SortStableFunc(sure, func(a, b *detector.FinderPattern) int { return b.GetCount() - a.GetCount() })
	sure = sure[:min(len(sure), centresRanked)]
	type ranked struct {
		triple [3]*detector.FinderPattern
		bend   float64
	}
	var best []ranked
	for i := range sure {
		for j := range i {
			for k := range j {
				t := [3]*detector.FinderPattern{sure[i], sure[j], sure[k]}
				bend := triangleBend(t)
				if bend > 0.8 || len(best) == triplesTried && bend >= best[triplesTried-1].bend {
					continue
				}
				at, _ := slices.BinarySearchFunc(best, bend, func(r ranked, b float64) int {
					if r.bend < b {
						return -1
					}
					return 1
				})
				best = slices.Insert(best, at, ranked{t, bend})
				best = best[:min(len(best), triplesTried)]
			}
		}
	}
	triples := make([][3]*detector.FinderPattern, len(best))
	for i, r := range best {
		triples[i] = r.triple
	}
	return triples
}

// triangleBend says how far three centres are from half a square, relative to their size; infinite where their modules
// differ too much for one code.
func triangleBend(t [3]*detector.FinderPattern) float64 {
	a, b, c := t[0].GetEstimatedModuleSize(), t[1].GetEstimatedModuleSize(), t[2].GetEstimatedModuleSize()
	if max(a, b, c) > 1.5*min(a, b, c) {
		return math.Inf(1)
	}
	sides := []float64{squareOf(t[0], t[1]), squareOf(t[1], t[2]), squareOf(t[0], t[2])}
	slices.Sort(sides)
	if sides[0] < 49*min(a, b, c)*min(a, b, c) { // no two finders of one code are that near
		return math.Inf(1)
	}
	return (math.Abs(sides[2]-2*sides[1]) + math.Abs(sides[2]-2*sides[0])) / sides[2]
}

func squareOf(a, b *detector.FinderPattern) float64 {
	x, y := a.GetX()-b.GetX(), a.GetY()-b.GetY()
	return x*x + y*y
}

func sameFinders(a, b *detector.FinderPatternInfo) bool {
	return a.GetTopLeft() == b.GetTopLeft() && a.GetTopRight() == b.GetTopRight() && a.GetBottomLeft() == b.GetBottomLeft()
}
