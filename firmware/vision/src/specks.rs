//! Islands of a few pixels: noise of the network, which on a mirror would glimmer beside people.

use crate::geometry::GridSize;

/// Connected grid pixels below this number are a speck: about a fifth of a face at four metres.
pub const LEAST_ISLAND: usize = 24;

/// Removes specks. Keeps its memory.
#[derive(Debug)]
pub struct Specks {
    seen: Vec<bool>,
    island: Vec<u32>,
}

impl Specks {
    /// For maps of `grid` pixels.
    pub fn new(grid: GridSize) -> Specks {
        Specks { seen: vec![false; grid.area()], island: Vec::with_capacity(grid.area()) }
    }

    /// Gives every group of fewer than [`LEAST_ISLAND`] pixels of people, joined along their sides, back to the
    /// background. `parts` is a part map of `grid` pixels, row by row.
    pub fn remove(&mut self, grid: GridSize, parts: &mut [u8]) {
        self.seen.fill(false);
        for start in 0..parts.len() {
            if parts[start] == 0 || self.seen[start] {
                continue;
            }
            self.flood(grid, parts, start);
            if self.island.len() < LEAST_ISLAND {
                self.island.iter().for_each(|&at| parts[at as usize] = 0);
            }
        }
    }

    /// Collects the pixels that are joined to `start`.
    fn flood(&mut self, grid: GridSize, parts: &[u8], start: usize) {
        self.island.clear();
        self.enter(parts, start);
        let mut next = 0;
        while let Some(&at) = self.island.get(next) {
            next += 1;
            let at = at as usize;
            let x = at % grid.width;
            if x > 0 {
                self.enter(parts, at - 1);
            }
            if x + 1 < grid.width {
                self.enter(parts, at + 1);
            }
            if at >= grid.width {
                self.enter(parts, at - grid.width);
            }
            if at + grid.width < parts.len() {
                self.enter(parts, at + grid.width);
            }
        }
    }

    fn enter(&mut self, parts: &[u8], at: usize) {
        if parts[at] != 0 && !self.seen[at] {
            self.seen[at] = true;
            self.island.push(at as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: GridSize = GridSize { height: 10, width: 12 };

    /// A map with the given rectangles (rows, columns) of part 3.
    fn map(rectangles: &[(std::ops::Range<usize>, std::ops::Range<usize>)]) -> Vec<u8> {
        let mut parts = vec![0; GRID.area()];
        for (rows, columns) in rectangles {
            rows.clone().for_each(|y| parts[y * 12 + columns.start..y * 12 + columns.end].fill(3));
        }
        parts
    }

    fn cleaned(mut parts: Vec<u8>) -> Vec<u8> {
        Specks::new(GRID).remove(GRID, &mut parts);
        parts
    }

    #[test]
    fn a_speck_goes_and_a_person_stays() {
        let person = (0..6, 0..4);
        assert_eq!(cleaned(map(&[person.clone(), (8..10, 9..12)])), map(&[person]));
    }

    #[test]
    fn a_thin_arm_belongs_to_its_person() {
        let joined = map(&[(0..6, 0..4), (3..4, 4..12)]);
        assert_eq!(cleaned(joined.clone()), joined);
    }

    #[test]
    fn lines_do_not_join_over_the_border_and_corners_do_not_touch() {
        assert_eq!(cleaned(map(&[(2..3, 8..12), (3..4, 0..4)])), map(&[]));
        assert_eq!(cleaned(map(&[(0..3, 0..6), (3..6, 6..12)])), map(&[]));
    }

    #[test]
    fn a_full_map_stays() {
        let full = map(&[(0..10, 0..12)]);
        assert_eq!(cleaned(full.clone()), full);
    }
}
