// Today's honest office: every trade of a day as the book holds it, and totals by state.
'use strict';
(() => {
  const $ = id => document.getElementById(id);
  const names = { SUCCESS: '成功 Paid', CLOSED: '已关闭 Closed', REVOKED: '已撤销 Reversed', PAYERROR: '未收款 Not paid', UNKNOWN: '未知 Unknown', NOTPAY: '待付款 Waiting', USERPAYING: '待确认 Confirming', ACCEPTED_OFFLINE: '离线受理 Offline', BOUNCED: '被拒 Bounced' };
  const modes = { code: '付款码', counter: '扫码枪', order: '动态码' };
  const yuan = fen => fen === null ? '—' : '¥' + (fen / 100).toFixed(2).replace(/\B(?=(\d{3})+\.)/g, ',');
  let loading = false;

  async function load() {
    if (loading) return;
    loading = true;
    try {
      const all = [];
      for (let cursor = ''; cursor !== null;) {
        const r = await fetch('/v1/trades?limit=500&date=' + $('day').value + (cursor ? '&cursor=' + encodeURIComponent(cursor) : ''), { credentials: 'same-origin' });
        const page = await r.json();
        if (r.status === 401) { location.reload(); return; }
        if (!r.ok) throw new Error(page.detail);
        all.push(...page.trades);
        cursor = page.next_cursor;
      }
      const bounced = await fetch('/v1/trades?state=BOUNCED&limit=500', { credentials: 'same-origin' });
      $('problem').textContent = '';
      draw(all);
      if (bounced.ok) drawBounced((await bounced.json()).trades);
    } catch (e) { $('problem').textContent = '读取失败：' + e.message; } finally { loading = false; }
  }
  function draw(all) {
    const by = new Map();
    let net = 0, fees = 0;
    for (const t of all) {
      const s = by.get(t.trade_state) || { n: 0, fen: 0 };
      s.n++; s.fen += t.total_fen;
      by.set(t.trade_state, s);
      if (t.trade_state === 'SUCCESS') { net += t.total_fen - t.refunded_fen; fees += t.fee_fen || 0; }
    }
    const cards = [['net', '净收款 Net', net, '手续费 Fees ' + yuan(fees)], ...[...by].map(([s, v]) => [s, names[s] || s, v.fen, v.n + ' 笔'])];
    $('totals').replaceChildren(...cards.map(([cls, name, fen, note]) => {
      const d = document.createElement('div');
      d.className = 'total ' + cls;
      d.innerHTML = '<span></span><b></b><small></small>';
      d.children[0].textContent = name; d.children[1].textContent = yuan(fen); d.children[2].textContent = note;
      return d;
    }));
    $('rows').replaceChildren(...all.map(t => {
      const tr = document.createElement('tr');
      for (const [v, cls] of [[t.created_at.slice(11, 19)], [t.out_trade_no], [names[t.trade_state] || t.trade_state, 's ' + t.trade_state], [modes[t.mode] || t.mode], [yuan(t.total_fen), 'n'], [yuan(t.fee_fen), 'n'], [yuan(t.refunded_fen), 'n'], [t.reason ? t.reason.text : '']]) {
        const td = document.createElement('td');
        td.textContent = v;
        if (cls) td.className = cls;
        tr.append(td);
      }
      return tr;
    }));
    $('when').textContent = all.length + ' 笔 · ' + new Date(Date.now() + 8 * 3600e3).toISOString().slice(11, 19);
  }
  // What the ledger refused for good, of every day: why, how old, who bears it, what to do, and the evidence to hold up.
  const bearers = { merchant: ['商户 Merchant', '联系顾客补付或作坏账；有异议凭凭据联系客服 · Ask the customer, or write it off; dispute it with the evidence'],
    ledger: ['账本中心 Ledger', '账本中心已担保，无需处理 · Guaranteed by the ledger, nothing to do'] };
  function drawBounced(list) {
    $('bounced').classList.toggle('hidden', list.length === 0);
    $('bounces').replaceChildren(...list.map(t => {
      const tr = document.createElement('tr'), who = bearers[t.bearer] || ['未说明 Not said', '联系客服 · Call support'];
      const hours = Math.max(0, Math.floor((Date.now() - Date.parse(t.created_at)) / 3600e3));
      const age = hours >= 48 ? Math.floor(hours / 24) + ' 天' : hours + ' 小时';
      for (const [v, cls] of [[t.created_at.slice(0, 16).replace('T', ' ')], [age], [t.out_trade_no], [yuan(t.total_fen), 'n'], [t.reason ? t.reason.text + '（' + t.reason.code + '）' : '—'], [who[0]], [who[1]]]) {
        const td = document.createElement('td');
        td.textContent = v;
        if (cls) td.className = cls;
        tr.append(td);
      }
      const td = document.createElement('td');
      if (t.accept) {
        const a = document.createElement('a');
        a.textContent = '下载 ACCEPT';
        a.download = t.trade_no + '.accept';
        a.href = 'data:application/octet-stream;base64,' + t.accept;
        td.append(a);
      }
      tr.append(td);
      return tr;
    }));
  }
  $('day').value = new Date(Date.now() + 8 * 3600e3).toISOString().slice(0, 10);
  $('day').addEventListener('change', load);
  load();
  setInterval(() => { if (!document.hidden) load(); }, 10000);
})();
