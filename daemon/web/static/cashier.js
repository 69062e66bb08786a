// The cashier's page: what is typed becomes an amount, the amount arms the scanner by itself, Enter shows a dynamic code.
// The page decides nothing about money: every state it shows is the terminal's own word for the trade.
'use strict';
(() => {
  const $ = id => document.getElementById(id);
  const ARM_AFTER = 400, UNKNOWN_AFTER = 3000, SILENT_AFTER = 3500, ROWS = 6;
  let entry = '', entryBefore = '', cur = null, want = null, busy = false, armTimer = 0, offset = 0, beat = 0, source = null, term = null;
  const sales = new Map();

  // ---- what stands where -------------------------------------------------------------------------------------------
  const looks = {
    idle: ['i-idle', '待收款', 'Ready', '输入金额，然后扫顾客付款码', 'Type the amount, then scan the customer\'s code'],
    entry: ['i-scan', '准备扫码', 'Getting ready', '停一下即可扫码，按 Enter 出动态码', 'Pause to scan, Enter for a dynamic code'],
    armed: ['i-scan', '请扫付款码', 'Scan the customer\'s code', '', ''],
    code: ['i-code', '请顾客扫码', 'Customer: scan to pay', '', ''],
    sending: ['i-wait', '处理中', 'Working', '正在等账本答复', 'Waiting for the ledger'],
    confirm: ['i-phone', '等待顾客确认', 'Customer: confirm on the phone', '', ''],
    paid: ['i-paid', '收款成功', 'Paid', '直接输入下一笔', 'Type the next amount'],
    failed: ['i-fail', '未收款', 'Not paid', '', ''],
    rescan: ['i-fail', '请重新扫码', 'Scan again', '', ''],
    unknown: ['i-unknown', '结果未知', 'Result unknown', '请勿重复收款，正在自动查询', 'Do not charge again; asking the ledger'],
    offline: ['i-off', '离线受理', 'Accepted offline', '待上传入账', 'To be settled'],
    closed: ['i-closed', '已取消', 'Cancelled', '未收款，直接输入下一笔', 'Nothing was taken'],
    revoked: ['i-closed', '已撤销', 'Reversed', '已退回顾客', 'The money went back'],
  };
  const short = { paid: '成功', failed: '未收款', unknown: '未知', offline: '离线', closed: '已取消', revoked: '已撤销', armed: '待扫码', code: '待付款', sending: '处理中', confirm: '待确认', rescan: '待重扫' };

  function lookOf(t, since) {
    switch (t.trade_state) {
      case 'SUCCESS': return 'paid';
      case 'PAYERROR': case 'BOUNCED': return 'failed';
      case 'CLOSED': return 'closed';
      case 'REVOKED': return 'revoked';
      case 'ACCEPTED_OFFLINE': return 'offline';
      case 'USERPAYING': return 'confirm';
      case 'UNKNOWN': return t.reason || !since || Date.now() - since > UNKNOWN_AFTER ? 'unknown' : 'sending';
    }
    if (t.mode === 'order') return 'code';
    return t.next_action === 'rescan' ? 'rescan' : 'armed';
  }
  const reversing = t => !!(t.reason && t.reason.code === 'REVERSING');
  const ended = t => t.final || t.trade_state === 'ACCEPTED_OFFLINE';
  const locked = () => cur && !ended(cur.trade) && !reversing(cur.trade) && (cur.trade.trade_state !== 'NOTPAY' || !cur.mine);

  // ---- drawing -----------------------------------------------------------------------------------------------------
  const yuan = fen => '¥' + (fen / 100).toFixed(2).replace(/\B(?=(\d{3})+\.)/g, ',');
  const text = (id, s) => { const e = $(id); if (e.textContent !== s) e.textContent = s; };
  const show = (id, on) => $(id).classList.toggle('hidden', !on);
  const serverNow = () => Date.now() + offset;
  let lastLook = '', lastActs = '';

  function draw() {
    const t = cur && cur.trade;
    const look = t ? lookOf(t, cur.since) : (entryFen() > 0 ? 'entry' : 'idle');
    const [icon, word, en, detail, detailEn] = looks[look];
    $('stage').className = look;
    $('icon').setAttribute('href', '#' + icon);
    text('word', look === 'unknown' && reversing(t) ? '正在撤销' : word);
    text('word-en', look === 'unknown' && reversing(t) ? 'Being reversed' : en);
    show('stage-amount', !!t || entryFen() > 0);
    text('stage-amount', t ? yuan(t.total_fen) : yuan(entryFen()));
    const why = t && t.reason && look !== 'closed' ? [t.reason.text, t.reason.text_en] : null;
    text('detail', why ? why[0] : detail);
    text('detail-en', why ? why[1] : detailEn);
    drawCode(look === 'code' && t.code ? t : null);
    drawTimer();
    const acts = look + (t && byDigits(t) ? ' digits' : '') + (t && convertible(t) ? ' convert' : '');
    if (acts !== lastActs) { drawActions(look, t); lastActs = acts; }
    if (look !== lastLook) { announce(look, t); lastLook = look; }
    drawEntry();
  }
  function drawEntry() {
    text('entry-text', entry || '0');
    $('entry').classList.toggle('empty', !entry);
    $('entry').classList.toggle('long', entry.length > 7);
  }
  function drawCode(t) {
    show('codebox', !!t);
    const img = $('code');
    if (!t) { img.removeAttribute('src'); return; }
    const src = '/display/code.svg?n=' + t.trade_no.slice(-8);
    if (img.getAttribute('src') !== src) img.src = src;
  }
  // Each module is a whole number of pixels, or a phone reads it badly.
  function fitCode() {
    const img = $('code'), side = img.naturalWidth, room = innerWidth <= 760 ? 260 : Math.min(innerHeight * .42, innerWidth * .26);
    if (side) img.style.width = img.style.height = Math.max(2, Math.floor(room / side)) * side + 'px';
  }
  $('code').addEventListener('load', fitCode);
  addEventListener('resize', fitCode);
  function drawTimer() {
    const t = cur && cur.trade, at = t && t.trade_state === 'NOTPAY' && (t.code ? t.code.expires_at : cur.until);
    const left = at ? Math.max(0, Date.parse(at) - serverNow()) : 0;
    show('timer', !!at);
    if (!at) return;
    $('timer-bar').style.setProperty('--left', Math.min(1, left / 180000));
    text('timer-text', '剩余 ' + Math.ceil(left / 1000) + ' 秒');
  }
  // An unknown result offers the query and waiting. There is no way to try again.
  function drawActions(look, t) {
    const list = look === 'unknown' || look === 'sending' ? [['查单', 'F6', query], ['等待', '', () => toast('继续等待，终端会自动查询 · Waiting')]]
      : look === 'armed' || look === 'rescan' || look === 'code' || look === 'confirm' ? [[look === 'confirm' ? '撤销' : '取消', 'Esc', escape]]
      : look === 'paid' ? [['重打印', '', () => reprint(t.out_trade_no)]] : [];
    if (t && convertible(t)) list.push(['转离线受理', '店长', () => openManager('convert', t)]);
    if (look === 'code' && byDigits(t)) list.push(['确认码', 'F9', () => openDigits(t)]);
    $('actions').replaceChildren(...list.map(([label, key, act]) => button(label, key, act)));
  }
  function button(label, key, act) {
    const b = document.createElement('button');
    b.type = 'button';
    b.append(label);
    if (key) { const s = document.createElement('small'); s.textContent = key; b.append(s); }
    b.addEventListener('click', act);
    return b;
  }
  function announce(look, t) {
    const amount = t ? yuan(t.total_fen) : '';
    $(['paid', 'failed', 'closed', 'revoked', 'offline'].includes(look) ? 'final' : 'live').textContent = looks[look][1] + ' ' + amount;
    if (cur && cur.heard === look) return;
    if (cur) cur.heard = look;
    if (look === 'paid') tone([660, 880, 1320]); else if (look === 'failed' || look === 'rescan') tone([220, 180]); else if (look === 'unknown') tone([440, 440, 440]);
  }
  let salesKey = '';
  function drawSales() {
    const list = [...sales.values()].filter(t => !(t.trade_state === 'CLOSED' && t.mode === 'counter'))
      .sort((a, b) => a.trade_no < b.trade_no ? 1 : -1).slice(0, ROWS);
    const key = JSON.stringify(list.map(t => [t, lookOf(t, Date.parse(t.created_at) - offset)]));
    if (key === salesKey) return; // a row that did not change keeps its buttons under the finger
    salesKey = key;
    $('sales').replaceChildren(...(list.length ? list.map(row) : [emptyRow()]));
  }
  function emptyRow() {
    const li = document.createElement('li');
    li.className = 'none';
    li.textContent = '今天还没有交易 · No sales yet today';
    return li;
  }
  function row(t) {
    const li = document.createElement('li'), look = lookOf(t, Date.parse(t.created_at) - offset);
    li.innerHTML = '<time></time><span class="what"><svg aria-hidden="true"><use></use></svg><span></span></span><span class="fen"></span><span class="does"></span>';
    li.querySelector('time').textContent = t.created_at.slice(11, 16);
    li.querySelector('.what').classList.add(look);
    li.querySelector('use').setAttribute('href', '#' + looks[look][0]);
    li.querySelector('.what span').textContent = short[look] || looks[look][1];
    li.querySelector('.fen').textContent = yuan(t.total_fen);
    if (t.refunded_fen) { const s = document.createElement('small'); s.textContent = '已退 ' + yuan(t.refunded_fen); li.querySelector('.fen').append(s); }
    const does = li.querySelector('.does');
    does.append(button('查单', '', () => ask(t.out_trade_no)));
    if (byDigits(t)) does.append(button('确认码', '', () => openDigits(t)));
    if (t.trade_state === 'ACCEPTED_OFFLINE' && !(t.reason && t.reason.code === 'WITHDRAWN')) does.append(button('撤回', '', () => openManager('withdraw', t)));
    if (t.trade_state === 'SUCCESS') {
      does.append(button('重打印', '', () => reprint(t.out_trade_no)));
      if (t.refunded_fen < t.total_fen) does.append(button('退款', '', () => openRefund(t)));
    }
    return li;
  }
  function drawStrip() {
    if (!term) return;
    text('shop', term.merchant || 'yupos');
    text('terminal', '终端 ' + term.terminal_id);
    const s = term.shift;
    text('shift-total', yuan(s ? s.total_fen - s.refund_fen : 0));
    text('shift-text', s ? '第 ' + s.number + ' 班 · ' + s.count + ' 笔' + (s.refund_count ? ' · 退 ' + s.refund_count : '') : '尚未开班');
    text('operator', '收银员 ' + (s && s.operator_id || '—'));
    show('queue', term.queue.count > 0);
    text('queue-fen', yuan(term.queue.fen));
    text('queue-text', '待确认 ' + term.queue.count + ' 笔' + (term.queue.oldest_at ? ' · 最早 ' + term.queue.oldest_at.slice(11, 16) : ''));
    device('link', term.link.state === 'up' ? 'ok' : 'down', term.link.text);
    for (const name of ['scanner', 'printer', 'display']) {
      const d = term.devices.find(d => d.kind === name);
      device(name, !d ? 'absent' : d.state === 'ok' ? 'ok' : 'fault', d ? d.text : '');
    }
  }
  function device(name, state, words) {
    const e = $('dev-' + name);
    e.className = 'chip dev ' + state;
    e.title = words || '';
  }
  function drawBanner() {
    const b = $('banner'), cut = beat && Date.now() - beat > SILENT_AFTER;
    const notes = [];
    if (cut) notes.push(['与终端断开，正在重连。请勿重复收款', 'Cut off from the terminal, reconnecting. Do not charge again']);
    else if (term) for (const w of term.warnings) notes.push(w.code === 'LINK_DOWN' ? offlineNote() : [w.text, w.text_en]);
    show('banner', notes.length > 0);
    b.classList.toggle('cut', !!cut);
    const key = JSON.stringify(notes);
    if (b.dataset.key === key) return;
    b.dataset.key = key;
    b.replaceChildren(...notes.slice(0, 2).map(([zh, en]) => {
      const div = document.createElement('div'), strong = document.createElement('b'), small = document.createElement('small');
      strong.textContent = zh; small.textContent = en; div.append(strong, small);
      return div;
    }));
  }
  // Without the line: what still works, and how much room is left, in money, count and time.
  function offlineNote() {
    const r = term.offline_ready, l = term.limits, e = term.exposure;
    const held = e.count ? '已受理待上传 ' + e.count + ' 笔 ' + yuan(e.fen) + '，最早 ' + e.oldest_at.slice(5, 16).replace('T', ' ') + '，' : '';
    const zh = r.ok ? '可扫离线码收款：每笔至多 ' + yuan(l.offline_payment_fen) + '，' + held + '还可受理 ' + l.offline_left_count + ' 笔 ' + yuan(l.offline_left_fen)
      : '暂不能离线受理：' + r.words.map(w => w.text).join('；');
    const en = r.ok ? 'Offline codes are taken: up to ' + yuan(l.offline_payment_fen) + ' each, ' + (e.count ? e.count + ' waiting (' + yuan(e.fen) + '), ' : '') + yuan(l.offline_left_fen) + ' left.'
      : 'No offline payments: ' + r.words.map(w => w.text_en).join('; ') + '.';
    return ['网络断开 · ' + zh, '仍可：出示动态码（扫凭证或输确认码入账）、查看交易、打印。不可：联网码、退款。请勿关机。 ' + en + ' Dynamic codes, list and print still work; online codes and refunds do not. Keep the terminal on.'];
  }
  let toastTimer = 0;
  function toast(s) {
    text('toast', s);
    $('toast').classList.add('on');
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => $('toast').classList.remove('on'), 3200);
  }

  // ---- sound -------------------------------------------------------------------------------------------------------
  let audio = null, muted = false;
  function tone(notes) {
    if (muted || !window.AudioContext) return;
    try {
      audio = audio || new AudioContext();
      if (audio.state === 'suspended') audio.resume();
      notes.forEach((f, i) => {
        const o = audio.createOscillator(), g = audio.createGain(), at = audio.currentTime + i * .16;
        o.frequency.value = f; o.connect(g); g.connect(audio.destination);
        g.gain.setValueAtTime(.22, at); g.gain.exponentialRampToValueAtTime(.001, at + .15);
        o.start(at); o.stop(at + .16);
      });
    } catch { /* a till without sound still sells */ }
  }
  $('mute').addEventListener('click', () => {
    muted = !muted;
    $('mute').setAttribute('aria-pressed', muted);
    text('mute', muted ? '声音关' : '声音开');
    $('mute').blur();
  });

  // ---- the terminal ------------------------------------------------------------------------------------------------
  const sleep = ms => new Promise(r => setTimeout(r, ms));
  async function call(method, path, body, token) {
    const headers = body ? { 'Content-Type': 'application/json' } : {};
    if (token) headers.Authorization = 'Bearer ' + token;
    const r = await fetch(path, { method, headers, body: body ? JSON.stringify(body) : undefined, credentials: 'same-origin' });
    const data = await r.json().catch(() => ({}));
    if (r.status === 401 && !token) renew();
    if (!r.ok) throw Object.assign(new Error(data.detail || ('HTTP ' + r.status)), { problem: data, status: r.status });
    return data;
  }
  // A call that may move money is repeated with the same number until the terminal has answered it.
  async function sure(method, path, body) {
    for (;;) {
      try { return await call(method, path, body); } catch (e) {
        if (e.status && e.status !== 401 && !(e.problem && e.problem.retryable && e.status >= 500)) throw e;
        await sleep(1000);
      }
    }
  }
  let renewed = 0;
  function renew() {
    if (Date.now() - renewed < 3000) return;
    renewed = Date.now();
    fetch('/', { credentials: 'same-origin', cache: 'no-store' }).then(connect, () => {});
  }
  function number() {
    const d = new Date(serverNow() + 8 * 3600e3).toISOString().replace(/\D/g, '').slice(0, 14);
    return 'K' + d + Array.from(crypto.getRandomValues(new Uint8Array(4)), b => 'ABCDEFGHJKLMNPQRSTUVWXYZ23456789'[b & 31]).join('');
  }
  function take(t) {
    sales.set(t.trade_no, t);
    if (sales.size > 200) sales.delete([...sales.keys()].sort()[0]);
    if (cur && (cur.no === t.out_trade_no)) {
      if (t.trade_state === 'UNKNOWN' && cur.trade.trade_state !== 'UNKNOWN') cur.since = Date.now();
      if (!(cur.trade.final && !t.final)) cur.trade = t;
      if (!(cur.leaving && t.trade_state === 'CLOSED') && (ended(t) || t.trade_state !== 'NOTPAY') && !reversing(t)) { if (want && want.fen === cur.fen) want = null; if (cur.mine) entry = ''; }
    }
  }
  // adopt shows a sale of the counter that this page did not begin: after a reload, or from a register.
  function adopt(counter) {
    const t = counter.trade;
    if (!t) return;
    if (cur && cur.no === t.out_trade_no) { cur.until = counter.changes_at; take(t); return; }
    if (ended(t) || cur && !ended(cur.trade) || busy || entry) return;
    cur = { no: t.out_trade_no, fen: t.total_fen, mode: t.mode, trade: t, mine: t.mode === 'counter' && t.out_trade_no[0] === 'K', until: counter.changes_at, since: Date.parse(t.created_at) - offset };
    if (cur.mine) entry = (t.total_fen / 100).toFixed(2).replace(/\.?0+$/, '');
  }

  // ---- from what is wanted to what is so ---------------------------------------------------------------------------
  const fits = () => cur && want && cur.mode === want.mode && cur.fen === want.fen && !ended(cur.trade) && !reversing(cur.trade);
  async function settle() {
    if (busy) return;
    busy = true;
    try {
      for (;;) {
        if (cur && cur.mine && cur.trade.trade_state === 'NOTPAY' && !fits()) { await cancel(); continue; }
        if (!want || fits() || locked()) break;
        if (!want.sure && !await warned(want)) { want = null; break; }
        await open(want);
      }
    } catch (e) {
      want = null;
      toast(e.message);
      if (e.problem && e.problem.code === 'COUNTER_BUSY') $('entry').classList.add('no'), setTimeout(() => $('entry').classList.remove('no'), 400);
    } finally { busy = false; draw(); }
  }
  // A second sale of the amount of an unresolved one may be the same customer once more: the cashier is asked first.
  async function warned(w) {
    const from = new Date(serverNow() - 120e3).toISOString();
    const list = (await sure('GET', '/v1/trades?state=UNKNOWN&limit=1&min_fen=' + w.fen + '&max_fen=' + w.fen + '&from=' + encodeURIComponent(from))).trades;
    if (!list.length) return w.sure = true;
    text('twice-what', yuan(w.fen) + ' · ' + list[0].out_trade_no);
    $('twice').dataset.no = list[0].out_trade_no;
    $('twice').returnValue = '';
    $('twice').showModal();
    $('twice-ask').focus();
    await new Promise(r => $('twice').addEventListener('close', r, { once: true }));
    if ($('twice').returnValue === 'ask') ask(list[0].out_trade_no);
    if ($('twice').returnValue !== 'go') entry = '';
    return w.sure = $('twice').returnValue === 'go';
  }
  async function open(w) {
    const no = number(), body = { out_trade_no: no, total_fen: w.fen };
    if (w.auth) body.auth_code = w.auth;
    const t = await sure('POST', w.mode === 'order' ? '/v1/trade/precreate' : '/v1/trade/pay', body);
    cur = { no, fen: w.fen, mode: w.mode, trade: t, mine: true, since: Date.now(), until: new Date(serverNow() + 180e3).toISOString() };
    if (w.auth) want = null;
    take(t);
    draw();
  }
  async function cancel() {
    cur.leaving = true; // its end is this page's wish: what is wanted next stays wanted
    try {
      const t = await sure('POST', '/v1/trade/' + encodeURIComponent(cur.no) + '/cancel', {});
      const was = cur;
      take(t);
      if (was.mode === 'counter' && t.trade_state === 'CLOSED' && (entry || want)) cur = null;
    } catch (e) {
      if (e.problem && e.problem.code === 'TRADE_PAID') { want = null; take(await call('GET', '/v1/trade/' + encodeURIComponent(cur.no))); return; }
      throw e;
    } finally { draw(); }
  }

  // ---- keys --------------------------------------------------------------------------------------------------------
  function entryFen() {
    const m = /^(\d{1,7})(?:\.(\d{0,2}))?$/.exec(entry);
    return m ? Number(m[1]) * 100 + Number(((m[2] || '') + '00').slice(0, 2)) : 0;
  }
  function refuse() {
    $('entry').classList.add('no');
    setTimeout(() => $('entry').classList.remove('no'), 400);
    toast('请先等这一笔有结果，或按 Esc · Wait for this sale, or Esc');
  }
  function type(k) {
    if (locked()) return refuse();
    if (cur && (ended(cur.trade) || reversing(cur.trade))) { cur = null; entry = ''; }
    if (cur && cur.mode === 'order') return refuse();
    let next = entry + k;
    if (k === '.' && entry === '') next = '0.';
    next = next.replace(/^0+(?=\d)/, '');
    if (!/^\d{0,7}(\.\d{0,2})?$/.test(next)) return;
    change(next);
  }
  function change(next) {
    entry = next;
    clearTimeout(armTimer);
    if (cur && entryFen() !== cur.fen || !cur) { want = null; settle(); }
    if (entryFen() > 0) armTimer = setTimeout(arm, /\.\d\d$/.test(entry) ? 60 : ARM_AFTER);
    draw();
  }
  function arm() {
    clearTimeout(armTimer);
    if (entryFen() > 0 && !locked() && !(cur && cur.mode === 'order' && !ended(cur.trade))) { want = { fen: entryFen(), mode: 'counter' }; settle(); }
  }
  function enter() {
    clearTimeout(armTimer);
    if (locked()) return refuse();
    if (entryFen() > 0) { want = { fen: entryFen(), mode: 'order' }; settle(); }
  }
  function escape() {
    clearTimeout(armTimer);
    want = null; entry = '';
    if (cur && !ended(cur.trade) && cur.trade.trade_state !== 'UNKNOWN' && !busy) {
      busy = true;
      cancel().catch(e => toast(e.message)).finally(() => { busy = false; settle(); });
    } else if (cur && ended(cur.trade)) cur = null;
    settle();
    draw();
  }
  function press(k) {
    if (/^(\d|00|\.)$/.test(k)) return type(k);
    switch (k) {
      case 'Backspace': if (entry && !locked()) change(entry.slice(0, -1)); break;
      case 'Delete': case 'c': case 'C': if (!locked()) change(''); break;
      case 'Enter': case 'F4': enter(); break;
      case 'F2': arm(); break;
      case 'F6': query(); break;
      case 'F9': if (cur && byDigits(cur.trade)) openDigits(cur.trade); break;
      case 'F8': case 'Escape': escape(); break;
      default: return false;
    }
    return true;
  }
  async function ask(no) {
    try { const t = await call('GET', '/v1/trade/' + encodeURIComponent(no) + '?wait=3s'); take(t); draw(); drawSales(); toast(t.display_text); } catch (e) { toast(e.message); }
  }
  function query() { if (cur) ask(cur.no); }
  async function reprint(no) {
    try { const j = await call('POST', '/v1/trade/' + encodeURIComponent(no) + '/print', {}); toast('已送打印，第 ' + j.copy + ' 份 · Sent to the printer'); } catch (e) { toast(e.message); }
  }

  // A scanner that types like a keyboard: many characters faster than a hand, then Enter. What it typed leaves the amount.
  let burst = '', burstAt = 0;
  function wedge(e) {
    const now = e.timeStamp, quick = now - burstAt <= 50;
    const c = /^Digit\d$/.test(e.code) && !e.shiftKey ? e.code.slice(5) : e.key;
    if (e.key === 'Enter' && quick && burst.length >= 16) {
      const code = burst;
      burst = '';
      entry = entryBefore;
      charge(code);
      return true;
    }
    if (c.length === 1) {
      if (!quick) { burst = ''; entryBefore = entry; }
      burst += c; burstAt = now;
      if (burst.length >= 8) { clearTimeout(armTimer); entry = entryBefore; drawEntry(); return true; }
    } else if (c !== 'Shift') burst = '';
    return false;
  }
  function charge(code) {
    const fen = entryFen() || (cur && cur.mine && cur.trade.trade_state === 'NOTPAY' ? cur.fen : 0);
    if (!fen) return toast('请先输入金额，再扫码 · Enter the amount first');
    if (locked()) return refuse();
    want = { fen, mode: 'code', auth: code };
    settle();
  }
  document.addEventListener('keydown', e => {
    if (document.querySelector('dialog[open]') || e.ctrlKey || e.altKey || e.metaKey || e.isComposing && e.code === '') return;
    if (wedge(e)) { e.preventDefault(); return; }
    const c = e.code, k = /^(Digit|Numpad)\d$/.test(c) && !e.shiftKey ? c.slice(-1) : c === 'NumpadDecimal' || c === 'Period' ? '.' : c === 'NumpadEnter' ? 'Enter' : e.key;
    if (k === 'Enter' && document.activeElement && document.activeElement.closest('#sales, #actions, #strip')) return;
    if (e.repeat && (k === 'Enter' || k === 'Escape')) return;
    const hit = document.querySelector('[data-key="' + CSS.escape(k) + '"]');
    if (hit) { hit.classList.add('hit'); setTimeout(() => hit.classList.remove('hit'), 120); }
    if (press(k) !== false) e.preventDefault();
  }, true);
  $('pad').addEventListener('click', e => {
    const b = e.target.closest('[data-key]');
    if (b) { press(b.dataset.key); b.blur(); }
  });

  // ---- refund: the manager's token goes with this one request and is forgotten --------------------------------------
  let refunding = null;
  function openRefund(t) {
    refunding = { t, no: 'R' + number().slice(1) };
    text('refund-what', t.out_trade_no + ' · ' + yuan(t.total_fen) + (t.refunded_fen ? '，已退 ' + yuan(t.refunded_fen) : ''));
    $('refund-amount').value = ((t.total_fen - t.refunded_fen) / 100).toFixed(2);
    $('refund-token').value = '';
    text('refund-error', '');
    $('refund').showModal();
    $('refund-token').focus();
  }
  $('refund-no').addEventListener('click', () => $('refund').close());
  $('refund').addEventListener('close', () => { $('refund-token').value = ''; refunding = null; });
  $('refund-amount').addEventListener('input', () => { if (refunding) refunding.no = 'R' + number().slice(1); });
  $('refund').querySelector('form').addEventListener('submit', async e => {
    e.preventDefault();
    const m = /^(\d{1,8})(?:\.(\d{1,2}))?$/.exec($('refund-amount').value.trim()), token = $('refund-token').value.trim();
    if (!m) return text('refund-error', '金额不对 · Not an amount');
    if (!token) return text('refund-error', '需要店长令牌 · A manager\'s token is needed');
    const fen = Number(m[1]) * 100 + Number(((m[2] || '') + '00').slice(0, 2));
    $('refund-yes').disabled = true;
    try {
      const f = await call('POST', '/v1/trade/' + encodeURIComponent(refunding.t.out_trade_no) + '/refunds?wait=15s', { out_refund_no: refunding.no, refund_fen: fen }, token);
      $('refund').close();
      toast(f.display_text);
    } catch (err) { text('refund-error', err.message); } finally { $('refund-yes').disabled = false; }
  });

  // ---- a manager's acts: 转离线受理 and 撤回. The token goes with this one request and is forgotten -------------------
  let managing = null;
  const convertible = t => t.convertible && term && t.total_fen <= term.limits.convert_fen;
  const acts = {
    convert: ['转离线受理', 'Accept offline', '/accept_offline', t => '账本未答复。顾客的离线码已通过本机核验，可按离线受理，联网后入账；同一笔不会重复扣款。' +
      (term ? '受理前待上传 ' + yuan(term.exposure.fen) + '，受理后 ' + yuan(term.exposure.fen + t.total_fen) + '，上限 ' + yuan(term.limits.offline_terminal_fen) + '。' : '')],
    withdraw: ['撤回离线付款', 'Withdraw', '/cancel', () => '上传前可撤回：不扣顾客的钱，也不退现金。撤回后请收回商品。'],
  };
  function openManager(act, t) {
    managing = { act, t };
    const [zh, en, , words] = acts[act];
    text('manager-word', zh);
    text('manager-en', en);
    text('manager-what', t.out_trade_no + ' · ' + yuan(t.total_fen));
    text('manager-why', words(t));
    $('manager-token').value = '';
    text('manager-error', '');
    $('manager').showModal();
    $('manager-token').focus();
  }
  $('manager-no').addEventListener('click', () => $('manager').close());
  $('manager').addEventListener('close', () => { $('manager-token').value = ''; managing = null; });
  $('manager').querySelector('form').addEventListener('submit', async e => {
    e.preventDefault();
    const token = $('manager-token').value.trim();
    if (!token) return text('manager-error', '需要店长令牌 · A manager\'s token is needed');
    $('manager-yes').disabled = true;
    try {
      take(await call('POST', '/v1/trade/' + encodeURIComponent(managing.t.out_trade_no) + acts[managing.act][2], {}, token));
      $('manager').close();
      draw(); drawSales();
    } catch (err) { text('manager-error', err.message); } finally { $('manager-yes').disabled = false; }
  });

  // ---- digits: with the line down, an order that was shown is settled by what the customer's phone says ------------
  let confirming = null;
  const byDigits = t => t.mode === 'order' && !t.final && term && term.link.state !== 'up';
  function openDigits(t) {
    confirming = t;
    text('digits-what', t.out_trade_no + ' · ' + yuan(t.total_fen));
    $('digits-text').value = '';
    text('digits-error', '');
    $('digits').showModal();
    $('digits-text').focus();
  }
  $('digits-no').addEventListener('click', () => $('digits').close());
  $('digits').addEventListener('close', () => { $('digits-text').value = ''; confirming = null; });
  $('digits').querySelector('form').addEventListener('submit', async e => {
    e.preventDefault();
    const typed = $('digits-text').value.trim();
    if (!/^[0-9]{8}$/.test(typed)) return text('digits-error', '确认码是 8 位数字 · Eight digits');
    $('digits-yes').disabled = true;
    try {
      take(await call('POST', '/v1/trade/' + encodeURIComponent(confirming.out_trade_no) + '/confirm', { digits: typed }));
      $('digits').close();
      draw(); drawSales();
    } catch (err) { text('digits-error', err.message); $('digits-text').select(); } finally { $('digits-yes').disabled = false; }
  });

  // ---- what the terminal tells -------------------------------------------------------------------------------------
  function connect() {
    if (source) source.close();
    source = new EventSource('/v1/events');
    const on = (name, f) => source.addEventListener(name, e => { beat = Date.now(); f(JSON.parse(e.data)); });
    on('snapshot', s => {
      offset = Date.parse(s.server_time) - Date.now();
      term = s.terminal;
      s.trades.forEach(take);
      if (cur && !s.trades.some(t => t.out_trade_no === cur.no)) call('GET', '/v1/trade/' + encodeURIComponent(cur.no)).then(take, () => {}).then(draw);
      adopt(s.counter);
      drawStrip(); drawSales(); drawBanner(); draw();
    });
    on('trade', t => { take(t); drawSales(); draw(); });
    on('refund', f => { if (f.final) toast(f.display_text); });
    on('terminal', t => { term = t; drawStrip(); drawBanner(); });
    on('counter', c => { adopt(c); draw(); });
    on('heartbeat', h => { offset = Date.parse(h.server_time) - Date.now(); });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(renew, 1500); };
  }
  setInterval(() => {
    text('clock', new Date(serverNow() + 8 * 3600e3).toISOString().slice(11, 19));
    drawBanner(); drawSales(); draw();
  }, 250);
  beat = Date.now();
  connect();
  drawSales();
  draw();
})();
