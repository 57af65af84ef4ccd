//! Broken input by the million for the parsers that read what others wrote: `fuzz TARGET|all SECONDS [SEED]`.
//!
//! A mutation fuzzer for stable Rust: valid seeds, bytes flipped, cut, doubled, spliced and set to edge values; sums that a format has
//! over its bytes are made right again. A panic ends it with the input saved as `target/fuzz-TARGET.bin`, and so does an input that
//! hangs; no panic and no input that takes a second is what is proved.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camera::{CaptureRequest, Delivery, DemoClip, SourceSpec};
use frame::FrameBuffer;
use frame::jpeg::JpegDecoder;

/// What no input may take.
const SLOW: Duration = Duration::from_secs(1);
/// An input that takes so long is not waited for.
const HANGS: Duration = Duration::from_secs(30);

/// Exif data that turn a picture by a quarter, in both orders of bytes.
const EXIF: [&[u8]; 2] = [
    b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
];

/// What is tested.
struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    /// Makes sums over the bytes right, without which nothing else would be read.
    mend: fn(&mut [u8]),
    run: fn(&[u8]),
}

impl Target {
    fn new(name: &'static str, seeds: Vec<Vec<u8>>, run: fn(&[u8])) -> Target {
        Target { name, seeds, mend: |_| {}, run }
    }
}

/// Keeps an input that a target failed on, to look at, in the source tree's `target`; gives the file's place.
fn keep(name: &str, input: &[u8]) -> String {
    let folder = root().join("target");
    let path = folder.join(format!("fuzz-{name}.bin"));
    std::fs::create_dir_all(folder).expect("a folder that git ignores");
    std::fs::write(&path, input).expect("the input is kept");
    path.display().to_string()
}

/// An input that is being read, since when, and by which target.
struct UnderWay {
    name: &'static str,
    input: Vec<u8>,
    since: Instant,
}

static UNDER_WAY: Mutex<Option<UnderWay>> = Mutex::new(None);

fn under_way() -> MutexGuard<'static, Option<UnderWay>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the program when an input hangs, on a thread of its own.
fn watch() {
    loop {
        std::thread::sleep(SLOW);
        if let Some(hung) = under_way().as_ref().filter(|under| under.since.elapsed() > HANGS) {
            println!("{}: HANGS, see {}", hung.name, keep(hung.name, &hung.input));
            std::process::exit(1);
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(wanted), Some(seconds)) =
        (arguments.first(), arguments.get(1).and_then(|s| s.parse().ok()))
    else {
        eprintln!("usage: fuzz jpeg|mjpeg|png|exif|y4m|film|settings|all SECONDS [SEED]");
        return ExitCode::from(2);
    };
    let seed = arguments.get(2).and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut found = false;
    let targets: Vec<Target> =
        targets().into_iter().filter(|t| wanted == "all" || t.name == wanted).collect();
    if targets.is_empty() {
        eprintln!("there is no target {wanted}");
        return ExitCode::from(2);
    }
    std::thread::spawn(watch);
    for target in targets {
        found |= !fuzz(&target, Duration::from_secs(seconds), seed);
    }
    if found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn targets() -> Vec<Target> {
    let read = |path: &str| std::fs::read(root().join(path)).expect("a file of this repository");
    let clip = read("firmware/mirror/assets/demo.mjpeg");
    let first = camera::mjpeg::next_picture(&clip).expect("the clip has pictures");
    let boards = ["pc", "rpi4", "rpi5", "rk3588", "virt"].map(|b| read(&format!("board/{b}.toml")));
    let y4m: [&[u8]; 2] = [
        b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG",
        b"YUV4MPEG2 W2 H2 F25:0 C444 I?",
    ];
    let pictures = ["overlay.png", "demo-labels/0000.png"];
    let pngs = pictures.map(|name| with_exif(&read(&format!("firmware/mirror/assets/{name}"))));
    let settings = boards.into_iter().chain([read("firmware/settings/src/defaults.toml")]);
    vec![
        Target::new("jpeg", vec![clip[first.clone()].to_vec()], jpeg),
        Target::new("mjpeg", vec![clip[..3 * first.end].to_vec()], mjpeg),
        Target { mend: mend_png, ..Target::new("png", pngs.to_vec(), png) },
        Target::new("exif", EXIF.map(<[u8]>::to_vec).to_vec(), exif),
        Target::new("y4m", y4m.map(<[u8]>::to_vec).to_vec(), y4m_header),
        Target::new("film", ["C420jpeg", "C422", "C444", "Cmono"].map(film).to_vec(), y4m_film),
        Target::new("settings", settings.collect(), settings_file),
    ]
}

/// A PNG file with Exif data behind its header.
fn with_exif(file: &[u8]) -> Vec<u8> {
    let (header, rest) = file.split_at(8 + 25);
    let length = (EXIF[0].len() as u32).to_be_bytes();
    let mut file = [header, &length, b"eXIf", EXIF[0], &[0; 4], rest].concat();
    mend_png(&mut file);
    file
}

/// Makes the sum of every chunk right, as far as there are chunks (PNG specification, section 5.3).
fn mend_png(file: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = file.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = (at + 8).saturating_add(length);
        let Some(content) = file.get(at + 4..end) else { return };
        let sum = crc32(content).to_be_bytes();
        let Some(place) = file.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&sum);
        at = end + 4;
    }
}

/// PNG specification, annex D.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ (0xEDB8_8320 * (sum & 1));
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

/// A film of three pictures.
fn film(chroma: &str) -> Vec<u8> {
    let line = format!("YUV4MPEG2 W6 H4 F25:1 Ip {chroma}\n");
    let header = camera::y4m::Header::parse(line.trim_end()).expect("valid");
    let picture = [&b"FRAME\n"[..], &vec![90_u8; header.picture_bytes()]].concat();
    [line.as_bytes(), &picture.repeat(3)].concat()
}

fn jpeg(input: &[u8]) {
    let _ = camera::jpeg_orientation(input);
    let _ = JpegDecoder::new().decode(input, None, &mut FrameBuffer::new());
}

fn mjpeg(mut input: &[u8]) {
    while let Some(range) = camera::mjpeg::next_picture(input) {
        assert!(range.start < range.end && range.end <= input.len());
        input = &input[range.end..];
    }
}

fn png(input: &[u8]) {
    let _ = camera::decode_png(input, 1 << 20, &mut FrameBuffer::new());
}

fn exif(input: &[u8]) {
    let _ = camera::exif_orientation(input);
}

/// A whole file, which is read by its name.
fn y4m_film(input: &[u8]) {
    let path = std::env::temp_dir().join(format!("fuzz-{}.y4m", std::process::id()));
    std::fs::write(&path, input).expect("writable");
    let request = CaptureRequest { formats: Vec::new(), width: 0, height: 0, rate: 0, buffers: 2 };
    let film = camera::open(&SourceSpec::Path(path.clone()), &request, DemoClip::new(&[]));
    if let Ok(mut film) = film {
        let mut picture = FrameBuffer::new();
        while let Ok(Delivery::Frame) = film.next(&mut picture, Duration::ZERO) {}
    }
    std::fs::remove_file(&path).expect("ours");
}

fn y4m_header(input: &[u8]) {
    let Ok(header) = camera::y4m::Header::parse(&String::from_utf8_lossy(input)) else { return };
    let layout = header.layout().expect("checked by the parser");
    // Small ones are run through, too.
    if header.picture_bytes() < 1 << 16 {
        let planar = vec![1; header.picture_bytes()];
        header.interleave(&planar, &mut vec![0; layout.byte_len()]);
    }
}

fn settings_file(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = settings::Board::parse("fuzz", &text);
    if let Ok(layers) = settings::Layers::defaults().and_then(|layers| layers.file("fuzz", &text)) {
        let _ = layers.finish();
    }
}

/// Whether the target survived.
fn fuzz(target: &Target, patience: Duration, seed: u64) -> bool {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let (began, mut runs, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
    while began.elapsed() < patience {
        let mut input = mutate(&target.seeds, &mut random);
        (target.mend)(&mut input);
        let (name, run) = (target.name, target.run);
        let time = || {
            let started = Instant::now();
            *under_way() = Some(UnderWay { name, input: input.clone(), since: started });
            let ended = catch_unwind(|| run(&input));
            *under_way() = None;
            ended.map(|()| started.elapsed())
        };
        // A busy machine makes any input slow once; a slow input is slow again.
        let took = time().and_then(|first| {
            if first > SLOW { time().map(|again| again.min(first)) } else { Ok(first) }
        });
        let Ok(took) = took else {
            println!("{name}: PANIC after {runs} inputs, see {}", keep(name, &input));
            return false;
        };
        slowest = slowest.max(took);
        runs += 1;
        if took > SLOW {
            let path = keep(name, &input);
            println!("{name}: {:.1} s for one input, see {path}", took.as_secs_f64());
            return false;
        }
    }
    println!(
        "{}: {runs} inputs, the slowest took {:.1} ms",
        target.name,
        slowest.as_secs_f64() * 1e3
    );
    true
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }
}

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(input.len());
        match random.below(7) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = [0, 0xFF, 0x7F, 0x80, b'"', b'\n', b'-', b'9'][random.below(8)],
            2 => input.truncate(at.max(1)),
            3 => {
                let end = (at + 1 + random.below(16)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, piece);
            }
            4 => {
                let end = (at + 1 + random.below(16)).min(input.len());
                input.drain(at..end);
            }
            5 => input.insert(at, random.below(256) as u8),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let end = (from + 1 + random.below(64)).min(other.len());
                let piece = other[from..end].to_vec();
                input.splice(at..at, piece);
            }
        }
        if input.is_empty() {
            input.push(0);
        }
    }
    input
}
