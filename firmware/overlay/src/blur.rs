//! Kernels over the nodes of a figure, as sums of whole numbers.

/// Taps of the short kernel, which is used across and down.
pub(crate) const KERNEL: [u16; 5] = [1, 4, 6, 4, 1];
/// Nodes that the short kernel reaches to either side.
pub(crate) const REACH: usize = 2;
/// Nodes that the triangular kernel along the outline reaches to either side.
pub(crate) const LONG_REACH: usize = 5;
/// Sum of the taps of the triangular kernel.
pub(crate) const LONG_SUM: u16 = 36;

/// The short kernel across, times its sum.
pub(crate) fn short_rows(from: &[u16], to: &mut [u16], width: usize) {
    for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
        for (sum, taps) in to[REACH..].iter_mut().zip(from.windows(KERNEL.len())) {
            *sum = taps[0] + taps[4] + 4 * (taps[1] + taps[3]) + 6 * taps[2];
        }
    }
}

/// The short kernel down, times its sum.
pub(crate) fn short_columns(from: &[u16], to: &mut [u16], width: usize) {
    let height = from.len() / width;
    for y in REACH..height - REACH {
        let rows = &from[(y - REACH) * width..(y + REACH + 1) * width];
        let out = &mut to[y * width..(y + 1) * width];
        for (x, sum) in out.iter_mut().enumerate() {
            let tap = |step: usize| rows[step * width + x];
            *sum = tap(0) + tap(4) + 4 * (tap(1) + tap(3)) + 6 * tap(2);
        }
    }
}

/// The triangular kernel across, times its sum: two boxes of [`LONG_REACH`] + 1 nodes.
pub(crate) fn tent_rows(from: &[u16], to: &mut [u16], width: usize) {
    const TAPS: usize = 2 * LONG_REACH + 1;
    for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
        for (sum, taps) in to[LONG_REACH..].iter_mut().zip(from.windows(TAPS)) {
            let pairs = (0..LONG_REACH).map(|i| (i as u16 + 1) * (taps[i] + taps[TAPS - 1 - i]));
            *sum = pairs.sum::<u16>() + (LONG_REACH as u16 + 1) * taps[LONG_REACH];
        }
    }
}

/// The triangular kernel down, times its sum; `line` is working memory of at least a row.
pub(crate) fn tent_columns(from: &[u16], to: &mut [u16], width: usize, line: &mut [u16]) {
    let height = from.len() / width;
    for y in LONG_REACH..height - LONG_REACH {
        let sums = &mut line[..width];
        sums.fill(0);
        for step in 0..=2 * LONG_REACH {
            let tap = (step.min(2 * LONG_REACH - step) + 1) as u16;
            let start = (y + step - LONG_REACH) * width;
            let row = &from[start..start + width];
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += tap * value);
        }
        to[y * width..(y + 1) * width].copy_from_slice(sums);
    }
}

/// Running sums of `2 * radius + 1` nodes across; nothing lies beyond the ends.
pub(crate) fn box_rows(from: &[u16], to: &mut [u16], width: usize, radius: usize) {
    for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
        let mut sum: u16 = from[..radius.min(width)].iter().sum();
        for x in 0..width {
            sum += from.get(x + radius).copied().unwrap_or(0);
            to[x] = sum;
            if x >= radius {
                sum -= from[x - radius];
            }
        }
    }
}

/// Running sums of `2 * radius + 1` nodes down.
pub(crate) fn box_columns(from: &[u16], to: &mut [u16], width: usize, radius: usize) {
    let height = from.len() / width;
    let row = |y: usize| y * width..(y + 1) * width;
    to[row(0)].fill(0);
    for y in 0..=radius.min(height - 1) {
        to[row(0)].iter_mut().zip(&from[row(y)]).for_each(|(sum, &value)| *sum += value);
    }
    for y in 1..height {
        let (done, rest) = to.split_at_mut(y * width);
        let (before, now) = (&done[(y - 1) * width..], &mut rest[..width]);
        now.copy_from_slice(before);
        if y + radius < height {
            now.iter_mut().zip(&from[row(y + radius)]).for_each(|(sum, &value)| *sum += value);
        }
        if y > radius {
            now.iter_mut().zip(&from[row(y - radius - 1)]).for_each(|(sum, &value)| *sum -= value);
        }
    }
}
