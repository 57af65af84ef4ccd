//! Islands of a few pixels: noise of the network, which on a mirror would glimmer beside people.

use frame::wipe;

use crate::geometry::GridSize;

/// Connected grid pixels below this number are a speck: about a fifth of a face at four metres.
pub const LEAST_ISLAND: usize = 24;

/// Removes specks. Keeps its memory.
#[derive(Debug)]
pub struct Specks {
    seen: Vec<bool>,
    island: Vec<u32>,
    /// What was removed last.
    gone: Vec<bool>,
}

impl Specks {
    /// For maps of `grid` pixels.
    pub fn new(grid: GridSize) -> Specks {
        let none = vec![false; grid.area()];
        Specks { seen: none.clone(), island: Vec::with_capacity(grid.area()), gone: none }
    }

    /// Nothing of earlier maps stays in memory.
    pub fn forget(&mut self) {
        wipe(&mut self.seen);
        wipe(&mut self.gone);
        wipe(&mut self.island);
        // Its length is the size of the last island.
        self.island.clear();
    }

    /// Gives every group of fewer than [`LEAST_ISLAND`] pixels of people, joined along their sides, back to the
    /// background. `parts` is a part map of `grid` pixels, row by row.
    pub fn remove(&mut self, grid: GridSize, parts: &mut [u8]) {
        self.seen.fill(false);
        self.gone.fill(false);
        for start in 0..parts.len() {
            if parts[start] == 0 || self.seen[start] {
                continue;
            }
            self.flood(grid, parts, start);
            if self.island.len() < LEAST_ISLAND {
                for &at in &self.island {
                    (parts[at as usize], self.gone[at as usize]) = (0, true);
                }
            }
        }
    }

    /// Whether a pixel of the last map belongs to what was removed, or to its border: a speck of a finer map reaches a little
    /// beyond the grid's. `parts` is the map that is left.
    pub fn is_gone(&self, grid: GridSize, parts: &[u8], x: usize, y: usize) -> bool {
        if parts[y * grid.width + x] != 0 {
            return false;
        }
        let rows = y.saturating_sub(1)..(y + 2).min(grid.height);
        let columns = x.saturating_sub(1)..(x + 2).min(grid.width);
        rows.flat_map(|y| columns.clone().map(move |x| y * grid.width + x)).any(|at| self.gone[at])
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
    fn what_went_is_known_with_its_border() {
        let mut parts = map(&[(0..6, 0..4), (8..10, 9..12)]);
        let mut specks = Specks::new(GRID);
        specks.remove(GRID, &mut parts);
        let is_gone = |x, y| specks.is_gone(GRID, &parts, x, y);
        assert!(is_gone(9, 8) && is_gone(11, 9) && is_gone(8, 7), "the speck and its border");
        assert!(!is_gone(7, 7) && !is_gone(2, 2) && !is_gone(4, 4), "elsewhere, and a person");
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
