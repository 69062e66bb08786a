package paycode

// workingSide bounds the longer side of the picture that most attempts look at. A larger picture is shrunk by a whole number
// first, and looked at in full once the cheap attempts have failed.
const workingSide = 1600

// doubleSide is the longest side for which doubling helps: in a larger picture the modules are large enough.
const doubleSide = 1000

// scene is one picture and what has been derived from it so far. Each view answers nothing where it would be the same as
// another or would not help.
type scene struct {
	full, work                 *grey // as given; at working size
	negative, soft, sharp, two *grey // derived once
}

func newScene(g *grey) *scene {
	return &scene{full: g, work: g.shrunk((max(g.Width, g.Height) + workingSide - 1) / workingSide)}
}

// once derives a view the first time.
func once(at **grey, derive func() *grey) *grey {
	if *at == nil {
		*at = derive()
	}
	return *at
}

func (s *scene) plain() *grey     { return s.work }
func (s *scene) whole() *grey     { return s.full }
func (s *scene) inverted() *grey  { return once(&s.negative, s.work.inverted) }
func (s *scene) blurred() *grey   { return once(&s.soft, s.work.blurred) }
func (s *scene) sharpened() *grey { return once(&s.sharp, s.work.sharpened) }
func (s *scene) turned20() *grey  { return s.work.turned(20) }
func (s *scene) turned45() *grey  { return s.work.turned(45) }
func (s *scene) padded() *grey    { return s.work.padded(20) }

func (s *scene) doubled() *grey {
	if max(s.work.Width, s.work.Height) > doubleSide {
		return nil
	}
	return once(&s.two, s.work.doubled)
}

// small is the picture in full where it is no larger than working size: in a larger one bars are wide enough.
func (s *scene) small() *grey {
	if s.full != s.work {
		return nil
	}
	return s.full
}

// larger is the picture in full, or nothing where that is what was looked at already.
func (s *scene) larger() *grey {
	if s.full == s.work {
		return nil
	}
	return s.full
}
