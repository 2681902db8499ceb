//! [`Outline`]: where a shape ends, as a signed distance.

use std::f64::consts::{PI, TAU};

use super::scene::Kind;

/// How far apart shapes stay, as a share of their radii.
const GAP: f64 = 0.12;

/// A circle or a polygon in pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outline {
    centre: (f64, f64),
    /// The largest distance of a point from the centre.
    reach: f64,
    /// Corners in order; none for a circle.
    corners: Vec<(f64, f64)>,
}

impl Outline {
    /// The outline of a `kind`; all kinds of one `radius` look about equally large.
    pub(super) fn new(kind: Kind, centre: (f64, f64), radius: f64, turn: f64) -> Self {
        // Angles from the top, distances in radii.
        let corners: Vec<(f64, f64)> = match kind {
            Kind::Circle => Vec::new(),
            Kind::Square => regular(4, 1.25, PI / 4.0),
            Kind::Triangle => regular(3, 1.3, 0.0),
            Kind::Star => {
                let points = regular(5, 1.3, 0.0);
                let notches = regular(5, 0.55, TAU / 10.0);
                points
                    .into_iter()
                    .zip(notches)
                    .flat_map(|(p, n)| [p, n])
                    .collect()
            }
            Kind::Cross => cross(1.1, 0.36),
        };
        let place = |(angle, distance): (f64, f64)| {
            let (sin, cos) = (angle + turn).sin_cos();
            (
                centre.0 + radius * distance * sin,
                centre.1 - radius * distance * cos,
            )
        };
        let reach = corners.iter().fold(0.0, |most: f64, c| most.max(c.1));
        Self {
            centre,
            reach: radius * if corners.is_empty() { 1.0 } else { reach },
            corners: corners.into_iter().map(place).collect(),
        }
    }

    pub(super) fn centre(&self) -> (f64, f64) {
        self.centre
    }

    /// Left, top, right and bottom.
    pub(super) fn bounds(&self) -> [f64; 4] {
        if self.corners.is_empty() {
            let ((x, y), r) = (self.centre, self.reach);
            return [x - r, y - r, x + r, y + r];
        }
        let start = [f64::MAX, f64::MAX, f64::MIN, f64::MIN];
        self.corners.iter().fold(start, |[l, t, r, b], (x, y)| {
            [l.min(*x), t.min(*y), r.max(*x), b.max(*y)]
        })
    }

    /// Whether two outlines are too near to be told apart.
    pub(super) fn touches(&self, other: &Self) -> bool {
        let (dx, dy) = (
            self.centre.0 - other.centre.0,
            self.centre.1 - other.centre.1,
        );
        dx.hypot(dy) < (1.0 + GAP) * (self.reach + other.reach)
    }

    /// How far `(x, y)` is from the border; negative inside.
    pub(super) fn distance(&self, x: f64, y: f64) -> f64 {
        if self.corners.is_empty() {
            return (x - self.centre.0).hypot(y - self.centre.1) - self.reach;
        }
        let (mut nearest, mut is_inside) = (f64::MAX, false);
        let before = self.corners.iter().cycle().skip(self.corners.len() - 1);
        for (&(bx, by), &(ax, ay)) in self.corners.iter().zip(before) {
            let (ex, ey) = (bx - ax, by - ay);
            let (wx, wy) = (x - ax, y - ay);
            let along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
            let (dx, dy) = (wx - along * ex, wy - along * ey);
            nearest = nearest.min(dx * dx + dy * dy);
            // A ray to the right crosses this side.
            if (ay > y) != (by > y) && x < ax + ex * wy / ey {
                is_inside = !is_inside;
            }
        }
        if is_inside {
            -nearest.sqrt()
        } else {
            nearest.sqrt()
        }
    }
}

/// The corners of a regular polygon: angle and distance.
fn regular(count: usize, distance: f64, first: f64) -> Vec<(f64, f64)> {
    let angle = |i| first + TAU * i as f64 / count as f64;
    (0..count).map(|i| (angle(i), distance)).collect()
}

/// The corners of a plus sign with arms of this length and half this width.
fn cross(arm: f64, half: f64) -> Vec<(f64, f64)> {
    let corner = |(x, y): (f64, f64)| (x.atan2(y), x.hypot(y));
    let arms = (0..4).flat_map(|quarter| {
        // Two ends of an arm, and the notch behind it.
        [(-half, arm), (half, arm), (half, half)].map(|(x, y)| match quarter {
            0 => (x, y),
            1 => (y, -x),
            2 => (-x, -y),
            _ => (-y, x),
        })
    });
    arms.map(corner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centres_are_inside_and_bounds_hold_everything() {
        for kind in Kind::ALL {
            let outline = Outline::new(kind, (50.0, 40.0), 20.0, 0.15);
            assert!(outline.distance(50.0, 40.0) < -4.0, "{kind:?}");
            let [left, top, right, bottom] = outline.bounds();
            for y in 0..80 {
                for x in 0..100 {
                    let (x, y) = (f64::from(x), f64::from(y));
                    let outside = x < left || x > right || y < top || y > bottom;
                    assert!(!outside || outline.distance(x, y) > 0.0, "{kind:?} {x} {y}");
                }
            }
            let (width, height) = (right - left, bottom - top);
            assert!(
                (32.0..=54.0).contains(&width) && (32.0..=54.0).contains(&height),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn distances_are_those_to_the_border() {
        let square = Outline::new(Kind::Square, (0.0, 0.0), 8.0, 0.0);
        let half = 8.0 * 1.25 / 2f64.sqrt();
        assert!((square.distance(0.0, 0.0) + half).abs() < 1e-9);
        assert!((square.distance(half + 3.0, 0.0) - 3.0).abs() < 1e-9);
        let circle = Outline::new(Kind::Circle, (1.0, 2.0), 5.0, 0.0);
        assert!((circle.distance(1.0, 9.0) - 2.0).abs() < 1e-9);
        let cross = Outline::new(Kind::Cross, (0.0, 0.0), 10.0, 0.0);
        assert!(cross.distance(9.0, 0.0) < 0.0 && cross.distance(8.0, 8.0) > 0.0);
    }

    #[test]
    fn shapes_of_one_radius_have_about_the_same_area() {
        let area = |kind| {
            let outline = Outline::new(kind, (60.0, 60.0), 30.0, 0.0);
            let points = (0..120).flat_map(|y| (0..120).map(move |x| (x, y)));
            let inside =
                points.filter(|&(x, y)| outline.distance(f64::from(x), f64::from(y)) < 0.0);
            inside.count() as f64 / (PI * 900.0)
        };
        for kind in Kind::ALL {
            let share = area(kind);
            assert!((0.6..=1.15).contains(&share), "{kind:?}: {share}");
        }
    }
}
