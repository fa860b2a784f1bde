//! Entry points, maps and the frame of the XDP program. Only for the BPF target.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use ringpost_ebpf::abi::{
    Address, BANS_MAX, BUCKETS_MAX, Counters, DROPS_OCTETS, DropEvent, INTERFACES_MAX, NETWORKS_MAX, Reason,
    SAMPLES_SAVED_MAX, Switches, UNITS, VERDICTS, Verdict,
};
use ringpost_ebpf::packet::{Located, Packet, locate};
use ringpost_ebpf::reset::{FRAME_OCTETS_MIN, PacketMut, answer};
use ringpost_ebpf::verdict::{Flow, Kernel, judge_frame};

const BPF_F_MMAPABLE: usize = 1 << 10;
const BPF_RB_NO_WAKEUP: u64 = 1;

/// The table in force. The daemon fills a new map through its mapping and swaps the one pointer. Words, not
/// units, because aya takes the size of an array of arrays for that of one of them.
#[btf_map]
static TABLES: ArrayOfMaps<Array<[u64; 4 * UNITS], 1, BPF_F_MMAPABLE>, 1> = ArrayOfMaps::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counters, { INTERFACES_MAX as usize }> = PerCpuArray::new();
#[btf_map]
static NETWORKS: PerCpuArray<u64, { NETWORKS_MAX as usize }> = PerCpuArray::new();
#[btf_map]
static BANS: LruHashMap<Address, u64, { BANS_MAX as usize }> = LruHashMap::new();
#[btf_map]
static BUCKETS: LruHashMap<Address, u64, { BUCKETS_MAX as usize }> = LruHashMap::new();
#[btf_map]
static SWITCHES: Array<Switches, 1> = Array::new();
/// Where [`Packet::forget`] takes offsets through.
#[btf_map]
static SCRATCH: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static DROPS: RingBuf<(), DROPS_OCTETS> = RingBuf::new();

/// For interfaces whose frames fit one buffer.
#[xdp]
pub fn ringpost_gate(ctx: XdpContext) -> u32 {
    gate(&ctx, |ctx| (ctx.data_end() - ctx.data()) as u64)
}

/// For interfaces with multi-buffer frames.
#[xdp(frags)]
pub fn ringpost_frags(ctx: XdpContext) -> u32 {
    // SAFETY: the helper only reads the context that the kernel passed in.
    gate(&ctx, |ctx| unsafe { bpf_xdp_get_buff_len(ctx.ctx) })
}

#[inline(always)]
fn gate(ctx: &XdpContext, frame_octets: impl Fn(&XdpContext) -> u64) -> u32 {
    // No table yet: the gate fails open, and counts nothing.
    let Some(table) = TABLES.get_value(0, &0) else { return XDP_PASS };
    let Ok(units) = table.as_chunks().0.try_into() else { return XDP_PASS };
    let outcome = judge_frame(units, &Frame::of(ctx), &Maps);
    let interface = ctx.ingress_ifindex() as u32;
    let Some(counters) = COUNTERS.get_ptr_mut(interface % INTERFACES_MAX) else { return XDP_PASS };
    // SAFETY: the slot belongs to this CPU, on which no other packet is judged before this one is done.
    let counters = unsafe { &mut *counters };
    counters.packets[outcome.verdict as usize % VERDICTS] += 1;
    if let Some((reason, flow)) = &outcome.refusal {
        sample(outcome.verdict, *reason, flow, interface, counters);
    }
    match outcome.verdict {
        Verdict::Accepted => count_network(outcome.network),
        Verdict::Reset => return reset(ctx, frame_octets),
        Verdict::DroppedNetwork | Verdict::DroppedBan | Verdict::DroppedRate => return XDP_DROP,
        Verdict::Counted | Verdict::Other | Verdict::Unparsed => {}
    }
    XDP_PASS
}

#[inline(always)]
fn count_network(number: u32) {
    if let Some(packets) = NETWORKS.get_ptr_mut(number) {
        // SAFETY: the slot belongs to this CPU, as in `gate`.
        unsafe { *packets += 1 };
    }
}

/// Turns the frame into its reset and sends it back. What has no answer is dropped. The header is located
/// once more: carrying its place through the look-ups would multiply the states that the verifier walks.
#[inline(always)]
fn reset(ctx: &XdpContext, frame_octets: impl Fn(&XdpContext) -> u64) -> u32 {
    let mut frame = Frame::of(ctx);
    let Located::Tcp(tcp) = locate(&frame) else { return XDP_DROP };
    let Some(octets) = answer(&mut frame, &tcp) else { return XDP_DROP };
    let surplus = frame_octets(ctx) as i64 - octets.max(FRAME_OCTETS_MIN) as i64;
    // SAFETY: the helper checks its arguments; the frame is not touched after it.
    if surplus > 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, -(surplus as i32)) } != 0 {
        return XDP_DROP;
    }
    XDP_TX
}

/// Writes a refusal to the ring, if this CPU has a sample left.
#[inline(always)]
fn sample(verdict: Verdict, reason: Reason, flow: &Flow, interface: u32, counters: &mut Counters) {
    let Some(switches) = SWITCHES.get(0) else { return };
    let oldest = switches.samples.saturating_sub(SAMPLES_SAVED_MAX);
    if counters.sampled < oldest {
        counters.sampled = oldest;
    }
    if counters.sampled >= switches.samples {
        return;
    }
    counters.sampled += 1;
    let Some(mut event) = DROPS.reserve_untyped::<DropEvent>(0) else { return };
    event.write(DropEvent {
        at_ns: Maps.now_ns(),
        source: flow.source,
        destination: flow.destination,
        interface,
        reason: reason as u32,
        verdict: verdict as u32,
        source_port: flow.source_port,
        port: flow.port,
    });
    // The daemon looks at the ring by its own pace: waking it up from here would let a flood set that pace.
    event.submit(BPF_RB_NO_WAKEUP);
}

/// The frame's first buffer, in which all its headers are.
struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn pairs<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        // The verifier must see the very pointer compared that is read from; the compiler would rather add up
        // anew for each, or leave out what it knows already.
        let at = core::hint::black_box(self.start + offset);
        if at + 2 * N > self.end {
            return None;
        }
        // SAFETY: just checked to lie in the frame; frames and the offsets in them are even.
        Some(unsafe { core::ptr::read(at as *const [u16; N]) })
    }

    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
        // SAFETY: the slot belongs to this CPU; volatile, so that the value really goes through memory, where the
        // verifier loses sight of it.
        let seen = unsafe {
            core::ptr::write_volatile(scratch, offset as u64);
            core::ptr::read_volatile(scratch)
        };
        (seen & 0x3ffe) as usize
    }
}

impl PacketMut for Frame {
    #[inline(always)]
    fn set_pairs<const N: usize>(&mut self, offset: usize, pairs: [u16; N]) -> Option<()> {
        let at = core::hint::black_box(self.start + offset);
        if at + 2 * N > self.end {
            return None;
        }
        // SAFETY: as in `pairs`; nobody else sees the frame while the program runs.
        unsafe { core::ptr::write(at as *mut [u16; N], pairs) };
        Some(())
    }
}

/// The kernel's maps and clock.
struct Maps;

impl Kernel for Maps {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn ban_ends_ns(&self, source: &Address) -> Option<u64> {
        if SWITCHES.get(0)?.bans == 0 {
            return None;
        }
        // SAFETY: the value is one aligned word: read at once, whoever writes it.
        unsafe { BANS.get(source) }.copied()
    }

    #[inline(always)]
    fn bucket_ns(&self, source: &Address) -> Option<u64> {
        // SAFETY: as for bans.
        unsafe { BUCKETS.get(source) }.copied()
    }

    #[inline(always)]
    fn set_bucket_ns(&self, source: &Address, paid_ns: u64) {
        // A full map only forgets older sources; there is nothing to do about an error.
        let _ = BUCKETS.insert(source, paid_ns, 0);
    }
}

/// Nothing here panics; the language asks for it all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
